package endpoint

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
)

// bodies is memory of answers with a token that were sent, for the next ones.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

// AnswerToken sends a 200 with the members that token adds to an object.
func AnswerToken(w http.ResponseWriter, token func([]byte) []byte) {
	body := bodies.Get().(*[]byte)
	*body = append(token(append((*body)[:0], '{')), '}')
	Answer(w, http.StatusOK, *body)
	bodies.Put(body)
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
