package imds

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"innate"
	"innate/agent/endpoint"
)

// serveInstance answers GET /metadata/instance and every path below, which is
// empty or begins with a slash.
func (s *Server) serveInstance(w http.ResponseWriter, r *http.Request, path string) {
	if err := s.check(r); err != nil {
		s.badInstance(w, err)
		return
	}
	q, err := endpoint.ParseQuery(r.URL.RawQuery)
	if err != nil {
		s.badInstance(w, err)
		return
	}
	version, format := q.Get("api-version"), q.Get("format")
	if !known(version) {
		s.badVersion(w, q.Misprint())
		return
	}
	if format != "" && format != "json" && format != "text" {
		s.badInstance(w, badRequest("format is json or text"))
		return
	}
	m, placed := s.machine()
	if !placed {
		notFound(w)
		return
	}
	var node any = tree(m, version)
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if name == "" {
			continue // the root
		}
		if node = child(node, name); node == nil {
			notFound(w)
			return
		}
	}
	leaf, isLeaf := node.(string)
	switch {
	case isLeaf && format != "text":
		s.badInstance(w, badRequest("a single value is served as text only: add format=text"))
	case isLeaf:
		writeText(w, leaf)
	case format == "text":
		writeText(w, strings.Join(children(node), "\n"))
	default:
		writeJSON(w, http.StatusOK, node)
	}
}

// child is the element called name, arrays by index; nil if there is none.
func child(node any, name string) any {
	switch n := node.(type) {
	case map[string]any:
		return n[name]
	case []any:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n) {
			return n[i]
		}
	}
	return nil
}

// children are the names below node, with a slash where there is more below.
func children(node any) []string {
	var names []string
	switch n := node.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(n)) {
			if _, leaf := n[name].(string); !leaf {
				name += "/"
			}
			names = append(names, name)
		}
	case []any:
		for i := range n {
			names = append(names, strconv.Itoa(i)+"/")
		}
	}
	return names
}

// tree is what instance metadata says of m to a client of that api-version.
func tree(m Machine, version string) map[string]any {
	root := map[string]any{}
	for _, e := range elements {
		if e.since <= version {
			put(root, strings.Split(e.path, "."), e.of(m))
		}
	}
	return root
}

func put(node map[string]any, path []string, value any) {
	for _, name := range path[:len(path)-1] {
		below, ok := node[name].(map[string]any)
		if !ok {
			below = map[string]any{}
			node[name] = below
		}
		node = below
	}
	node[path[len(path)-1]] = value
}

// tagsText is "k:v;k2:v2", in order of the names.
func tagsText(m Machine) any {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m.Tags)) {
		parts = append(parts, name+":"+m.Tags[name])
	}
	return strings.Join(parts, ";")
}

func tagsList(m Machine) any {
	list := []any{}
	for _, name := range slices.Sorted(maps.Keys(m.Tags)) {
		list = append(list, map[string]any{"name": name, "value": m.Tags[name]})
	}
	return list
}

func interfaces(m Machine) any {
	list := []any{}
	for _, i := range m.Interfaces {
		addresses, subnets, v6 := []any{}, []any{}, []any{}
		for _, p := range i.IPv4 {
			addresses = append(addresses, map[string]any{"privateIpAddress": p.Addr().String(), "publicIpAddress": ""})
			subnets = append(subnets, subnet(p))
		}
		for _, a := range i.IPv6 {
			v6 = append(v6, map[string]any{"privateIpAddress": a.String()})
		}
		list = append(list, map[string]any{
			"ipv4":       map[string]any{"ipAddress": addresses, "subnet": subnets},
			"ipv6":       map[string]any{"ipAddress": v6},
			"macAddress": i.MAC,
		})
	}
	return list
}

func subnet(p netip.Prefix) any {
	return map[string]any{"address": p.Masked().Addr().String(), "prefix": strconv.Itoa(p.Bits())}
}

// Errors of this category have a sentence where others have a code.

func (s *Server) badInstance(w http.ResponseWriter, err error) {
	no := endpoint.Grade(err)
	endpoint.Headers(w.Header(), no)
	writeJSON(w, no.Status, map[string]string{"error": "Bad request. " + no.Text})
}

// badVersion names the versions to use, and the misprint if that is why there is none.
func (s *Server) badVersion(w http.ResponseWriter, misprint error) {
	text := "Bad request. api-version is invalid or was not specified in the request. For more information refer to aka.ms/azureimds"
	var r *innate.Refusal
	if errors.As(misprint, &r) {
		text = fmt.Sprintf("Bad request. %s", r.Text)
	}
	newest := slices.Clone(versions[len(versions)-3:])
	slices.Reverse(newest)
	endpoint.Headers(w.Header(), innate.Refusal{Status: http.StatusBadRequest})
	writeJSON(w, http.StatusBadRequest, struct {
		Error  string   `json:"error"`
		Newest []string `json:"newest-versions"`
	}{text, newest})
}

func notFound(w http.ResponseWriter) {
	endpoint.Headers(w.Header(), innate.Refusal{Status: http.StatusNotFound})
	writeJSON(w, http.StatusNotFound, map[string]string{"error": "Not found"})
}

func writeText(w http.ResponseWriter, s string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(s)))
	h["Cache-Control"] = noStore
	io.WriteString(w, s)
}
