package gateway

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// problem is an error answer, RFC 9457. Nothing of a payload or a secret is ever in it. Its type is about:blank: the status says what kind
// of problem it is, and Reason which one. docs/contract.md has a sentence for each reason.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Reason string `json:"reason,omitempty"` // for programs
	ID     string `json:"id,omitempty"`     // of the event that it is about
	// Limit is what was exceeded, and Field the field of the resource that sets it; "" where none does.
	Limit int64  `json:"limit,omitempty"`
	Field string `json:"field,omitempty"`
	// Errors are the single faults, of a schema or of a batch's members.
	Errors []fault `json:"errors,omitempty"`
	// Results are there when a batch was stored in part: one for each event, in order.
	Results []result `json:"results,omitempty"`

	RetryAfter time.Duration `json:"-"`
}

// fault is one thing that is wrong with the events of a request.
type fault struct {
	Index  *int   `json:"index,omitempty"` // of a batch's member, from 0
	Path   string `json:"path,omitempty"`  // JSON pointer into the data
	Detail string `json:"detail"`
}

type result struct {
	ID     string `json:"id"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// refuse answers with p and counts it.
func (f *front) refuse(w http.ResponseWriter, p problem) {
	f.stats.refused(p.Status)
	p.write(w)
}

// NotFound refuses a request to an address that no gateway is at.
func NotFound(w http.ResponseWriter) {
	problem{Status: http.StatusNotFound, Reason: "NotFound", Detail: "nothing is served at this address; /status lists what is"}.write(w)
}

// LocalOnly refuses a request from elsewhere for what is meant for those who run the process.
func LocalOnly(w http.ResponseWriter, path string) {
	problem{Status: http.StatusForbidden, Reason: "LocalOnly",
		Detail: path + " is for callers on the machine that waybill runs on: ask from there, or put a proxy in front of it that asks who is there"}.write(w)
}

func (p problem) write(w http.ResponseWriter) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.RetryAfter+time.Second-1)/time.Second)))
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may be gone
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
