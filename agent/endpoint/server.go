package endpoint

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Server is an http.Server for h with the limits that a local endpoint needs
// (host-attestation §9): 5 s and 16 kB for a request's header, 5 s for its body.
// No client waits longer for a token than the answer may take. Serve on a Door,
// which says how many may connect. log hears of broken connections, at debug
// level; nil means slog.Default().
func Server(h http.Handler, log *slog.Logger) *Service {
	if log == nil {
		log = slog.Default()
	}
	s := &Service{busy: map[net.Conn]bool{}}
	s.Server = &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      90 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		// "OPTIONS *" is refused like everything else, not answered by net/http.
		DisableGeneralOptionsHandler: true,
		ConnState:                    s.note,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, guestKey{}, c)
		},
	}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			// What the handler leaves of a body, net/http waits for, without an end:
			// a place that a caller could keep for nothing. It is cut off here because
			// Server.ReadTimeout would also cut off who waits for a token.
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.ReadHeaderTimeout))
		}
		if g, ok := r.Context().Value(guestKey{}).(*guest); ok {
			if g.served() || s.finishing() {
				w.Header().Set("Connection", "close") // another is at the door
			}
			defer g.waits()
		}
		h.ServeHTTP(w, r)
	})
	return s
}
