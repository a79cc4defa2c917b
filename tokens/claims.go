package tokens

import (
	"strings"
	"time"

	"innate"
)

// notBefore is how far nbf lies behind iat, for verifiers whose clock is slow.
const notBefore = 5 * time.Minute

// claims are an access token's (managed-identity-endpoints §5). Those that only
// one version has are empty in the other.
type claims struct {
	Audience  string `json:"aud"`
	Issuer    string `json:"iss"`
	IssuedAt  int64  `json:"iat"`        // never backdated: revocation compares it
	Moment    int64  `json:"innate_iat"` // the same in milliseconds: what is made again within a second of its end is not taken for what ended
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`

	AppID    innate.ClientID `json:"appid,omitempty"`    // v1
	AppACR   string          `json:"appidacr,omitempty"` // v1
	Azp      innate.ClientID `json:"azp,omitempty"`      // v2
	AzpACR   string          `json:"azpacr,omitempty"`   // v2
	Provider string          `json:"idp,omitempty"`      // v1

	Type      string          `json:"idtyp"` // "app"
	Object    innate.ObjectID `json:"oid"`
	Subject   innate.ObjectID `json:"sub"` // equal to oid: the mark of a token without a user
	Tenant    innate.TenantID `json:"tid"`
	TokenID   string          `json:"uti"`
	JWTID     string          `json:"jti"`
	Version   string          `json:"ver"`
	Identity  string          `json:"xms_mirid,omitempty"`  // managed identities: the resource they live with
	Hosting   string          `json:"xms_az_rid,omitempty"` // managed identities: the resource that asked
	Host      string          `json:"innate_host,omitempty"`
	Assurance string          `json:"innate_assurance,omitempty"`
	Actor     *actor          `json:"act,omitempty"` // who exchanged another token for this one

	Roles        []string               `json:"roles,omitempty"`
	Groups       []innate.ObjectID      `json:"groups,omitempty"`
	ClaimNames   map[string]string      `json:"_claim_names,omitempty"`
	ClaimSources map[string]claimSource `json:"_claim_sources,omitempty"`
	Capabilities []string               `json:"xms_cc,omitempty"` // cp1: the client can handle a claims challenge
}

func (s *Service) claims(q *request, who caller, to audience) claims {
	id, now := newTokenID(), q.now.Unix()
	c := claims{
		Audience:  to.value,
		Issuer:    s.issuer[to.version],
		IssuedAt:  now,
		Moment:    q.now.UnixMilli(),
		NotBefore: max(now-int64(notBefore/time.Second), q.wanted.notBefore),
		Expires:   now + s.lifetimes.of(to.id, who.object.ID).seconds(),
		Type:      "app",
		Object:    who.object.ID,
		Subject:   who.object.ID,
		Tenant:    s.config.Tenant,
		TokenID:   id,
		JWTID:     id,
		Identity:  azureID(who.object.Owner),
		Hosting:   azureID(who.hosting),
		Host:      string(who.host),
		Actor:     who.actor,
	}
	if who.actor != nil {
		c.Expires = min(c.Expires, who.until)
	}
	who.standing.say(&c, s.graph())
	if q.wanted.challenges && to.challenges {
		c.Capabilities = []string{capability}
	}
	if who.assurance != innate.Unproved {
		c.Assurance = who.assurance.String()
	}
	if to.version == 2 {
		c.Version, c.Azp, c.AzpACR = "2.0", who.object.Client, who.acr
	} else {
		c.Version, c.AppID, c.AppACR, c.Provider = "1.0", who.object.Client, who.acr, c.Issuer
	}
	return c
}

// azureID spells a resource id as Entra's tokens do.
func azureID(id innate.ResourceID) string {
	return strings.Replace(string(id), "/resourceGroups/", "/resourcegroups/", 1)
}
