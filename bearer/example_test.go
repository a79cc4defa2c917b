package bearer_test

import (
	"fmt"
	"log"
	"net/http"

	"innate/bearer"
)

// A service of yours that takes the platform's tokens.
func Example() {
	verifier, err := bearer.New(bearer.Config{
		Authority: "https://login.example.org",
		Tenant:    "11111111-2222-4333-8444-555555555555",
		Audiences: []string{"api://orders"},
	})
	if err != nil {
		log.Fatal(err)
	}
	orders := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := bearer.From(r.Context())
		fmt.Fprintf(w, "hello %s, running on %s\n", who.Name, who.Host.Name())
	})
	http.Handle("/orders/", verifier.Require(orders, nil))
}
