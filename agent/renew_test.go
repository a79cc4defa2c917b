package agent_test

import (
	"fmt"
	"testing"
	"time"

	"innate"
	"innate/agent"
)

func TestAHostRenewsItsCertificateByItselfAlsoAfterItsEnd(t *testing.T) {
	for _, later := range []time.Duration{
		15 * time.Hour,      // past half of a day, and the tenth of it by which hosts part
		23 * time.Hour,      // nearly over
		25 * time.Hour,      // the host was switched off meanwhile
		31 * 24 * time.Hour, // whether it still may is the control plane's to say
	} {
		p := newPlane(t)
		p.place(app(ident(1, true)))
		a := p.start(func(c *agent.Config) {
			c.Now = func() time.Time { return time.Now().Add(later) }
		})
		eventually(t, "the certificate is renewed", func() bool { return p.renewals.Load() > 0 })

		// The plane's clock is not ahead, so that the new certificate seems old here,
		// too. That is no reason to renew it again and again.
		p.answer(p.issue(later + time.Hour))
		for n := range 20 {
			if _, err := a.Token(t.Context(), apiApp, innate.Selector{}, fmt.Sprint(vault, n), innate.SecretOnly); err != nil {
				t.Fatalf("%s later: %v", later, err)
			}
		}
		if n := p.renewals.Load(); n != 1 {
			t.Errorf("%s later: %d renewals, want 1", later, n)
		}
	}
}
