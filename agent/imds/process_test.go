package imds_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"innate"
	"innate/agent/caller"
	"innate/agent/endpoint"
	"innate/agent/imds"
	"innate/agent/launch"
)

// The test binary is also the stub, and the workload: a process of its own.
func TestMain(m *testing.M) {
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	switch role {
	case "launch":
		fmt.Fprintln(os.Stderr, launch.Main())
		os.Exit(1)
	case "sdk":
		answer, err := sdk(os.Args[2:])
		fmt.Println(answer, err)
	default:
		os.Exit(m.Run())
	}
}

// sdk asks as an unmodified application on a VM would.
func sdk(args []string) (string, error) {
	var options azidentity.ManagedIdentityCredentialOptions
	if len(args) == 2 {
		switch args[0] {
		case "client":
			options.ID = azidentity.ClientID(args[1])
		case "object":
			options.ID = azidentity.ObjectID(args[1])
		case "resource":
			options.ID = azidentity.ResourceID(args[1])
		}
	}
	credential, err := azidentity.NewManagedIdentityCredential(&options)
	if err != nil {
		return "", err
	}
	token, err := credential.GetToken(context.Background(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	return token.Token, err
}

// metadataNamespace is a network namespace with nothing in it but a loopback
// that owns the metadata service's address.
func metadataNamespace(t *testing.T) *os.File {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for a network namespace of its own")
	}
	made := make(chan *os.File, 1)
	go func() {
		defer close(made)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("making a network namespace: %v", err)
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
			return
		}
		made <- f
	}()
	ns, ok := <-made
	if !ok {
		t.FailNow()
	}
	t.Cleanup(func() { ns.Close() })
	err := caller.InNamespace(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		address, err := netlink.ParseAddr("169.254.169.254/32")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, address)
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func TestAnUnmodifiedSDKInANamespaceGetsItsToken(t *testing.T) {
	ns := metadataNamespace(t)
	var l *net.TCPListener
	err := caller.InNamespace(ns, func() (err error) {
		l, err = caller.Listen("169.254.169.254:80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := newServer(t, imds.Config{Now: time.Now, Tokens: tokenSource(func(which innate.Selector, resource string) (innate.Token, error) {
		token, err := identities(which, resource)
		token.Expires = time.Now().Add(time.Hour) // azidentity goes by the real clock
		return token, err
	})})
	server := endpoint.Server(s, nil)
	go server.Serve(l)
	defer server.Close()

	for _, test := range []struct {
		role []string
		want string
	}{
		{[]string{"sdk"}, "token of " + system + " for https://vault.azure.net"},
		{[]string{"sdk", "client", user}, "token of " + user + " for https://vault.azure.net"},
		{[]string{"sdk", "object", user}, "token of " + user + " for https://vault.azure.net"},
		{[]string{"sdk", "resource", string(userID)}, "token of " + user + " for https://vault.azure.net"},
		{[]string{"sdk", "client", "00000000-0000-0000-0000-00000000dead"}, "Identity not found"},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p, err := launch.Start(launch.Spec{
			Args: append([]string{"/proc/self/exe"}, test.role...), Env: []string{"GORACE=atexit_sleep_ms=0"},
			Stub: []string{"/proc/self/exe", "launch"}, UID: 60001, NetNS: ns, Stdout: w, Stderr: w,
		})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil || !strings.Contains(string(out), test.want) {
			t.Errorf("%v: %s (%v)\nwant %s", test.role, out, err, test.want)
		}
	}
}
