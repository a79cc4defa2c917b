package resources

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"innate/rest"
)

const (
	maxResource = 256 << 10 // bytes of a row
	maxTags     = 50
	maxTagName  = 512
	maxTagValue = 256
)

var wordRule = regexp.MustCompile(`^[A-Za-z0-9 ,()-]{0,64}$`)

// A body is what a PUT or PATCH sent. A nil field was not sent.
type body struct {
	location   *string
	kind       *string
	tags       map[string]string
	sku        json.RawMessage
	identity   *identityBlock
	properties map[string]json.RawMessage
	extra      map[string]json.RawMessage
}

// readOnly are the members of the envelope that clients send back as they got them.
var readOnly = []string{"id", "name", "type", "etag", "systemData"}

// readBody reads the envelope (control-plane §3.3). Members and known
// properties may be in any case; what we do not know is kept.
func readBody(r *http.Request, k *kind) (b body, err error) {
	var members map[string]json.RawMessage
	if err := rest.Read(r, &members); err != nil {
		return b, err
	}
	if members == nil {
		return b, badContent("the request body is null: send a JSON object")
	}
	members, err = spell(members, append([]string{"location", "kind", "tags", "sku", "identity", "properties"}, readOnly...))
	if err != nil {
		return b, err
	}
	b.extra = members
	for name, into := range map[string]any{
		"location": &b.location, "kind": &b.kind, "tags": &b.tags, "identity": &b.identity, "properties": &b.properties,
	} {
		raw, sent := members[name]
		if !sent {
			continue
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return b, badContent("%s has the wrong JSON type", name)
		}
		delete(members, name)
		if name == "identity" && b.identity == nil {
			b.identity = &identityBlock{null: true}
		}
	}
	if sku, sent := members["sku"]; sent {
		b.sku = sku
		delete(members, "sku")
	}
	for _, name := range readOnly {
		delete(members, name)
	}
	if err := b.checkWords(); err != nil {
		return b, err
	}
	computed := slices.Concat(k.computed, []string{"provisioningState"})
	if b.properties, err = spell(b.properties, slices.Concat(k.known, computed)); err != nil {
		return b, err
	}
	for _, name := range computed {
		delete(b.properties, name)
	}
	scrub(b.properties)
	return b, nil
}

// writeOnly are properties that ARM takes and never shows. We have no machine to
// set them on, and keep no secret that nobody may read.
var writeOnly = []string{"adminPassword", "administratorLoginPassword", "customData", "protectedSettings", "userData"}

// scrub drops what is write-only, at any depth of objects.
func scrub(members map[string]json.RawMessage) {
	for name, raw := range members {
		if slices.ContainsFunc(writeOnly, func(w string) bool { return strings.EqualFold(w, name) }) {
			delete(members, name)
			continue
		}
		var below map[string]json.RawMessage
		if json.Unmarshal(raw, &below) == nil && below != nil {
			scrub(below)
			members[name] = encode(below)
		}
	}
}

// encode writes an object made of JSON that was read.
func encode(members map[string]json.RawMessage) json.RawMessage {
	raw, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	return raw
}

func badContent(format string, args ...any) error {
	return rest.Errorf(http.StatusBadRequest, "InvalidRequestContent", format, args...)
}

// spell gives the members that are known the case in which we know them: two
// spellings of one would be two answers to one question.
func spell(members map[string]json.RawMessage, known []string) (map[string]json.RawMessage, error) {
	if members == nil {
		return nil, nil
	}
	out := make(map[string]json.RawMessage, len(members))
	for name, raw := range members {
		if i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, name) }); i >= 0 {
			name = known[i]
		}
		if _, twice := out[name]; twice {
			return nil, badContent("member %q stands twice in one object of the request body", name)
		}
		out[name] = raw
	}
	return out, nil
}

// checkWords bounds what people type: location, kind and tags.
func (b body) checkWords() error {
	for name, word := range map[string]*string{"location": b.location, "kind": b.kind} {
		if word != nil && !wordRule.MatchString(*word) {
			return badContent("%s %.40q: want at most 64 letters, digits, spaces and ,()-", name, *word)
		}
	}
	if len(b.tags) > maxTags {
		return badContent("%d tags: want at most %d", len(b.tags), maxTags)
	}
	for name, value := range b.tags {
		if name == "" || len(name) > maxTagName || len(value) > maxTagValue {
			return badContent("tag %.40q: want a name of 1 to %d bytes and a value of at most %d", name, maxTagName, maxTagValue)
		}
	}
	return nil
}

// put makes r what a PUT says: what was not sent is gone, except what a resource
// keeps for life.
func (b body) put(r *Resource, k *kind) {
	kept := map[string]json.RawMessage{}
	for _, name := range k.computed {
		if raw, ok := r.Properties[name]; ok {
			kept[name] = raw
		}
	}
	r.Properties, r.Extra, r.Tags, r.SKU = withoutNulls(b.properties), withoutNulls(b.extra), b.tags, notNull(b.sku)
	r.Kind = ""
	if b.kind != nil {
		r.Kind = *b.kind
	}
	maps.Copy(r.Properties, kept)
}

// patch changes r by what a PATCH says: tags are replaced as a whole, properties
// merged (RFC 7396).
func (b body) patch(r *Resource) {
	if b.tags != nil {
		r.Tags = b.tags
	}
	if b.kind != nil {
		r.Kind = *b.kind
	}
	if b.sku != nil {
		r.SKU = notNull(b.sku)
	}
	r.Properties = merge(r.Properties, b.properties)
	r.Extra = merge(r.Extra, b.extra)
}

// merge is RFC 7396 on one object.
func merge(target, patch map[string]json.RawMessage) map[string]json.RawMessage {
	out := maps.Clone(target)
	if out == nil {
		out = map[string]json.RawMessage{}
	}
	for name, raw := range patch {
		if notNull(raw) == nil {
			delete(out, name)
			continue
		}
		var below, change map[string]json.RawMessage
		if json.Unmarshal(raw, &change) != nil {
			out[name] = raw
			continue
		}
		if json.Unmarshal(out[name], &below) != nil {
			below = nil // not an object: it is replaced
		}
		out[name] = encode(merge(below, change))
	}
	return out
}

// notNull is raw, or nil for JSON's null.
func notNull(raw json.RawMessage) json.RawMessage {
	if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return nil
	}
	return raw
}

// withoutNulls copies an object; a null member is an absent one.
func withoutNulls(in map[string]json.RawMessage) map[string]json.RawMessage {
	out := make(map[string]json.RawMessage, len(in))
	for name, raw := range in {
		if raw = notNull(raw); raw != nil {
			out[name] = raw
		}
	}
	return out
}
