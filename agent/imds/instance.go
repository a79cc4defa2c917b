package imds

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"innate/agent/endpoint"
)

// serveInstance answers GET /metadata/instance and every path below, which is
// empty or begins with a slash.
func (s *Server) serveInstance(w http.ResponseWriter, r *http.Request, path string) {
	q, m, ok := s.enter(w, r, versions, endpoint.Composed)
	if !ok {
		return
	}
	format := q.Get("format")
	if format != "" && format != "json" && format != "text" {
		s.badInstance(w, badRequest("format is json or text"))
		return
	}
	var links []Interface
	if s.links != nil {
		var err error
		if links, err = s.links(); err != nil {
			s.badInstance(w, fmt.Errorf("reading the VM's network interfaces: %w", err))
			return
		}
	}
	var node any = tree(vm{m, links}, q.Get("api-version"))
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if name == "" {
			continue // the root
		}
		if node = child(node, name); node == nil {
			notFound(w, "Not found")
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
		endpoint.Answer(w, http.StatusOK, endpoint.JSON(node))
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

// A vm is what there is to tell of a VM.
type vm struct {
	Machine
	links []Interface
}

// tree is what instance metadata says of m to a client of that api-version.
func tree(m vm, version string) map[string]any {
	root := map[string]any{}
	for _, e := range elements {
		if e.since <= version {
			put(root, strings.Split(e.path, "."), e.value(m))
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
func tagsText(m vm) any {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m.Tags)) {
		parts = append(parts, name+":"+m.Tags[name])
	}
	return strings.Join(parts, ";")
}

func tagsList(m vm) any {
	list := []any{}
	for _, name := range slices.Sorted(maps.Keys(m.Tags)) {
		list = append(list, map[string]any{"name": name, "value": m.Tags[name]})
	}
	return list
}

func writeText(w http.ResponseWriter, s string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(s)))
	h.Set("Cache-Control", "no-store")
	io.WriteString(w, s)
}
