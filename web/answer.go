package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// An Error is the body of every answer that is not a success. Position says how
// far this node had come when a wait ran out of time.
type Error struct {
	Error string `json:"error"`
	*Position
}

func answer(w http.ResponseWriter, code int, body any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ") // people read it with curl
	if err := e.Encode(body); err != nil {
		code = http.StatusInternalServerError
		b.Reset()
		b.WriteString(`{"error": "the answer cannot be encoded"}` + "\n")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // nobody is left to tell
}

func fail(w http.ResponseWriter, code int, err error) {
	answer(w, code, Error{Error: err.Error()})
}

// statusOf is the HTTP status of an error of a Source. ctx is the request's,
// with its deadline.
func statusOf(ctx context.Context, err error) int {
	switch {
	case errors.Is(err, ErrUnknown):
		return http.StatusNotFound
	case errors.Is(err, ErrConflict):
		return http.StatusConflict
	case errors.Is(err, ErrUnavailable):
		return http.StatusServiceUnavailable
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case ctx.Err() != nil: // the node stops, or the client has gone
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
