package vault

import (
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"innate/rest"
)

// Key Vault's limits (control-plane §5.3).
const (
	maxValue       = 25_600 // bytes
	maxContentType = 255    // characters
	maxTags        = 15
	maxTag         = 512 // characters of a tag's name or value
	maxName        = 127
	pageSize       = 25
)

// A setBody is the body of PUT /secrets/{name}.
type setBody struct {
	Value       *string           `json:"value"`
	ContentType string            `json:"contentType"`
	Tags        map[string]string `json:"tags"`
	Attributes  changes           `json:"attributes"`
}

func (b *setBody) check() error {
	switch {
	case b.Value == nil:
		return bad("value", "the secret has no value: send {\"value\": \"…\"}")
	case len(*b.Value) > maxValue:
		return bad("value", "the value has %d bytes: want at most %d", len(*b.Value), maxValue)
	}
	return checkBeside(b.ContentType, b.Tags, b.Attributes)
}

// A patchBody is the body of PATCH /secrets/{name}/{version}: what is absent
// stays as it is; tags are replaced as a whole.
type patchBody struct {
	ContentType *string           `json:"contentType"`
	Tags        map[string]string `json:"tags"`
	Attributes  changes           `json:"attributes"`
}

func (b *patchBody) check() error {
	contentType := ""
	if b.ContentType != nil {
		contentType = *b.ContentType
	}
	return checkBeside(contentType, b.Tags, b.Attributes)
}

// changes are the attributes that a caller may set.
type changes struct {
	Enabled   *bool  `json:"enabled"`
	NotBefore *int64 `json:"nbf"`
	Expires   *int64 `json:"exp"`
}

func (c changes) change(row *versionRow) {
	if c.Enabled != nil {
		row.Disabled = !*c.Enabled
	}
	if c.NotBefore != nil {
		row.NotBefore = c.NotBefore
	}
	if c.Expires != nil {
		row.Expires = c.Expires
	}
}

// checkBeside checks what stands beside a value.
func checkBeside(contentType string, tags map[string]string, c changes) error {
	if n := utf8.RuneCountInString(contentType); n > maxContentType {
		return bad("contentType", "the content type has %d characters: want at most %d", n, maxContentType)
	}
	if len(tags) > maxTags {
		return bad("tags", "there are %d tags: want at most %d", len(tags), maxTags)
	}
	for name, value := range tags {
		if name == "" || utf8.RuneCountInString(name) > maxTag || utf8.RuneCountInString(value) > maxTag {
			return bad("tags", "a tag's name or value is empty or longer than %d characters", maxTag)
		}
	}
	if c.NotBefore != nil && *c.NotBefore < 0 || c.Expires != nil && *c.Expires < 0 {
		return bad("attributes", "nbf and exp are seconds since 1970: want no negative number")
	}
	return nil
}

// checkName checks a secret's name before anything is asked about it.
func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return bad("name", "a secret's name has %d characters: want 1 to %d", len(name), maxName)
	}
	for _, c := range name {
		if named := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-'; !named {
			return bad("name", "a secret's name has the character %q: want letters, digits and hyphens", c)
		}
	}
	return nil
}

func bad(target, format string, args ...any) error {
	return &rest.Error{Status: http.StatusBadRequest, Code: "BadParameter", Target: target, Message: fmt.Sprintf(format, args...)}
}

// A bundle is a secret on the wire. Times are in seconds since 1970.
type bundle struct {
	Value       *string           `json:"value,omitempty"`
	ID          string            `json:"id"` // on the host that the client called
	ContentType string            `json:"contentType,omitempty"`
	Tags        map[string]string `json:"tags"` // never null
	Attributes  attributes        `json:"attributes"`
	*deletion
}

type attributes struct {
	Enabled         bool   `json:"enabled"`
	NotBefore       *int64 `json:"nbf,omitempty"`
	Expires         *int64 `json:"exp,omitempty"`
	Created         int64  `json:"created"`
	Updated         int64  `json:"updated"`
	RecoveryLevel   string `json:"recoveryLevel"`
	RecoverableDays int    `json:"recoverableDays"`
}

// A deletion is what a deleted secret has in addition.
type deletion struct {
	RecoveryID         string `json:"recoveryId"`
	DeletedDate        int64  `json:"deletedDate"`
	ScheduledPurgeDate int64  `json:"scheduledPurgeDate"`
}

// A listing is a page of a list.
type listing struct {
	Value    []bundle `json:"value"`
	NextLink *string  `json:"nextLink"`
}

// bundle writes a version of a secret.
func (s secret) bundle(host string) bundle {
	b := s.item(host)
	b.ID += "/" + s.version
	b.Value = s.value
	return b
}

// item writes a secret as a list of secrets shows it: without a version.
func (s secret) item(host string) bundle {
	tags := s.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	return bundle{
		ID:          "https://" + host + "/secrets/" + s.name,
		ContentType: s.ContentType,
		Tags:        tags,
		Attributes: attributes{
			Enabled: !s.Disabled, NotBefore: s.NotBefore, Expires: s.Expires, Created: s.Created, Updated: s.Updated,
			RecoveryLevel: s.level, RecoverableDays: s.days,
		},
	}
}

// bundle writes a deleted secret.
func (d deletedSecret) bundle(host string) bundle {
	b := d.secret.bundle(host)
	b.deletion = d.deletion(host)
	return b
}

// item writes a deleted secret as a list shows it.
func (d deletedSecret) item(host string) bundle {
	b := d.secret.item(host)
	b.deletion = d.deletion(host)
	return b
}

func (d deletedSecret) deletion(host string) *deletion {
	return &deletion{
		RecoveryID:  "https://" + host + "/deletedsecrets/" + d.name,
		DeletedDate: d.deleted.Unix(), ScheduledPurgeDate: d.purge.Unix(),
	}
}

// listed writes a page; item writes one of it.
func listed[T any](r *http.Request, page rest.Page, found []T, next string, item func(one T, host string) bundle) listing {
	l := listing{Value: make([]bundle, 0, len(found))}
	for _, one := range found {
		l.Value = append(l.Value, item(one, r.Host))
	}
	if link := page.Next(r, next); link != "" {
		l.NextLink = &link
	}
	return l
}

// isVersion reports whether s can be the id of a version.
func isVersion(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}
