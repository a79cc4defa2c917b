package endpoint

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"innate"
)

// Object begins the body of an answer with a token: '{', and room for the rest.
// said is what the caller sent that is repeated in it.
func Object(t innate.Token, said ...string) []byte {
	const others = 320 // bytes of names, times and an id
	n := len(t.Value) + others
	for _, s := range said {
		n += len(s)
	}
	return append(make([]byte, 0, n), '{')
}

// JSON is v as the body of an answer.
func JSON(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("endpoint: an answer that cannot be written: %v", err))
	}
	return body
}

// Answer sends a body of JSON with its length, never in chunks.
func Answer(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Cache-Control"] = noStore
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	w.Write(body)
}

var (
	jsonType = []string{"application/json; charset=utf-8"}
	noStore  = []string{"no-store"}
)
