package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"innate/server"
)

// A pipe is a listener without a network, so that time can be the bubble's.
type pipe struct {
	conns chan net.Conn
	ended chan struct{}
	end   func()
}

func newPipe() *pipe {
	ended := make(chan struct{})
	return &pipe{make(chan net.Conn), ended, sync.OnceFunc(func() { close(ended) })}
}

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipe) Close() error   { p.end(); return nil }
func (p *pipe) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (p *pipe) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

func TestABodyThatDoesNotEndIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "control")
		if err := server.Create(t.Context(), dir, domain, false, time.Now()); err != nil {
			t.Fatal(err)
		}
		p := newPipe()
		s, err := server.New(t.Context(), server.Config{
			Dir: dir, Listener: p, Operator: -1, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		c := tls.Client(p.dial(), trust(s, "login."+domain))
		c.SetDeadline(time.Now().Add(10 * time.Minute))
		var writing sync.WaitGroup
		defer func() {
			c.Close()
			writing.Wait()
			stop()
			if err := <-ended; err != nil {
				t.Errorf("the server ended with: %v", err)
			}
		}()

		fmt.Fprintf(c, "POST /%s/oauth2/v2.0/token HTTP/1.1\r\nHost: login.%s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\n", s.Platform.Tenant, domain)
		began := time.Now()
		writing.Go(func() { // a byte every few seconds keeps no place
			for range 30 {
				if _, err := c.Write([]byte("a")); err != nil {
					return
				}
				time.Sleep(5 * time.Second)
			}
		})
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if took := time.Since(began); resp.StatusCode < http.StatusBadRequest || !resp.Close || took > time.Minute {
			t.Errorf("after %s: %s", took, resp.Status)
		}
	})
}
