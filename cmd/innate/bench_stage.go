package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"path/filepath"

	"innate"
	"innate/platform"
)

// A stage is a platform for the rows that need one.
type stage struct {
	*platform.Platform
	prover   *prover        // once a row needs it
	database *benchDatabase // the same

	stop  context.CancelFunc
	ended chan struct{}
	err   error // of Run; read after ended
}

// benchGroup is where the rows put their resources.
const benchGroup = "bench"

// platform starts the stage, or returns the one that stands.
func (b *bench) platform(ctx context.Context) (*stage, error) {
	if b.stage != nil {
		return b.stage, nil
	}
	p, err := platform.Open(ctx, platform.Config{
		Dir: filepath.Join(b.dir, "platform"), Stub: []string{b.program, "launch"}, Log: b.session.log(),
	})
	if err != nil {
		return nil, err
	}
	st := &stage{Platform: p, ended: make(chan struct{})}
	ctx, st.stop = context.WithCancel(ctx)
	go func() {
		defer close(st.ended)
		st.err = p.Run(ctx)
	}()
	select {
	case <-p.Ready():
	case <-st.ended:
		st.stop()
		return nil, errors.Join(errors.New("the platform ended before it was ready"), st.err)
	}
	b.stage = st
	return st, ensureGroup(ctx, p.Admin, benchGroup)
}

// close ends the platform; there may be none.
func (st *stage) close() error {
	if st == nil {
		return nil
	}
	var err error
	if st.database != nil {
		err = st.database.Close()
	}
	st.stop()
	<-st.ended
	return errors.Join(err, st.err)
}

// resource is the id of one in the bench's group.
func (st *stage) resource(typ, name string) innate.ResourceID {
	return st.Admin.Group(benchGroup) + innate.ResourceID("/providers/"+typ+"/"+name)
}

// put makes a resource; one that has an identity tells it.
func (st *stage) put(ctx context.Context, id innate.ResourceID, body map[string]any) (identityBlock, error) {
	body["location"] = "local"
	var r struct {
		Identity identityBlock `json:"identity"`
	}
	err := st.Admin.ARM(ctx, http.MethodPut, string(id), body, &r)
	return r.Identity, err
}

// dial connects to one of the platform's names, "hosts" or "kv1.vault" for
// instance, under a client certificate or none.
func (st *stage) dial(name string, cert *tls.Certificate) dialFunc {
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: st.roots(), ServerName: name + "." + st.Server.Platform.Domain}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	return dialTLS(st.Server.Addr().String(), config)
}

// roots are whom the platform's clients trust.
func (st *stage) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(st.Server.Bundle())
	return roots
}
