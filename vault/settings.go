package vault

import (
	"slices"
	"strings"

	"innate"
)

// Settings are what a vault's resource says of its secrets. The zero value is a
// vault whose readers are told by roles, which keeps deleted secrets for 90
// days and lets them be purged before.
type Settings struct {
	Retention int      `json:"retention,omitempty"` // days that a deleted secret is kept; 0 means 90
	Protected bool     `json:"protected,omitempty"` // none is purged before
	InTime    bool     `json:"inTime,omitempty"`    // nbf and exp are enforced, which Azure does not do
	ByPolicy  bool     `json:"byPolicy,omitempty"`  // Policies say who may do what, and roles do not
	Policies  []Policy `json:"policies,omitempty"`
}

// A Policy is what one principal may do with secrets, in Azure's words: get,
// list, set, delete, backup, restore, recover, purge or all.
type Policy struct {
	Object  innate.ObjectID `json:"object"`           // a user, group or service principal
	Client  innate.ClientID `json:"client,omitempty"` // only when it asks through this application
	Secrets []string        `json:"secrets"`
}

// longestRetention is the default too, in days.
const longestRetention = 90

func (s Settings) days() int {
	if s.Retention == 0 {
		return longestRetention
	}
	return s.Retention
}

// level is the vault's recoveryLevel (control-plane §5.3).
func (s Settings) level() string {
	level := "Recoverable"
	if s.days() < longestRetention {
		level = "CustomizedRecoverable"
	}
	if !s.Protected {
		level += "+Purgeable"
	}
	return level
}

// permits reports whether a policy gives the permission to any of ids, which
// are who asks and its groups.
func (s Settings) permits(ids []innate.ObjectID, client innate.ClientID, permission string) (innate.ObjectID, bool) {
	for _, p := range s.Policies {
		if p.Client != "" && !strings.EqualFold(string(p.Client), string(client)) || !slices.Contains(ids, p.Object) {
			continue
		}
		if slices.ContainsFunc(p.Secrets, func(word string) bool {
			return strings.EqualFold(word, permission) || strings.EqualFold(word, "all")
		}) {
			return p.Object, true
		}
	}
	return "", false
}
