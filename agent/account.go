package agent

import (
	"fmt"
	"net/http"

	"innate"
	"innate/agent/opener"
)

// lendsUser refuses a run under a user of the host (name or uid) instead of under
// the app's own uid. That uid proves nothing, for other programs have it too: the
// cgroup must, so proof may not be less. It is for root alone, who can be that
// user anyway, and who said so to the opener where that is a process of its own.
func (a *Agent) lendsUser(name string, by uint32, proof innate.Assurance) error {
	why := ""
	switch {
	case by != 0:
		why = fmt.Sprintf("uid %d may not run an app under another user: only root may", by)
	case proof < innate.CgroupUID && a.host().facts.Root():
		why = fmt.Sprintf("under another user: here callers are proved by %s only, and every program of that user would be the app", proof)
	default:
		err := opener.Lends(a.opener, name)
		if err == nil {
			return nil
		}
		why = err.Error()
	}
	return &innate.Refusal{Status: http.StatusForbidden, OAuth: "access_denied", Text: why}
}
