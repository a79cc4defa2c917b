package innatetest_test

import (
	"os/exec"
	"testing"

	"innate/innatetest"
)

// A test of one's own service: it is started as an app, with no password, and
// reads its secret with whichever SDK it uses.
func Example() {
	_ = func(t *testing.T) {
		p := innatetest.Start(t)
		orders, kv := p.App("orders"), p.Vault("kv1")
		kv.Put("db-password", "hunter2")
		p.Grant(orders, "Key Vault Secrets User", kv)

		service := exec.Command("orders-service", "--vault", kv.URL())
		service.Env = append(service.Environ(), orders.Env()...)
		service.Env = append(service.Env, p.Dir.Trust()...)
		if err := service.Start(); err != nil {
			t.Fatal(err)
		}
		// … requests to the service; then, what it can do no longer:
		p.Delete(orders)
	}
}
