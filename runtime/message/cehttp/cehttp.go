// Package cehttp maps messages onto HTTP as the CloudEvents HTTP protocol binding 1.0.2 has it, in binary, structured and batched mode,
// and takes a plain body for an event too.
package cehttp

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/waybill-dev/waybill/runtime/message"
)

// Media types of the structured and the batched mode.
const (
	Structured = "application/cloudevents+json"
	Batched    = "application/cloudevents-batch+json"

	family = "application/cloudevents"
)

// An UnsupportedError is about a representation that this package does not read: 415.
type UnsupportedError struct {
	Problem  string
	Encoding bool // it is about Content-Encoding, not about the media type
}

func (e *UnsupportedError) Error() string { return e.Problem }

// Defaults are the attributes of an event that is made of a plain body. NewID is asked only where no Idempotency-Key gives the id.
type Defaults struct {
	Type, Source string
	NewID        func() string
}

// Mode is how a request or an answer carries events.
type Mode int

const (
	ModePlain Mode = iota
	ModeBinary
	ModeStructured
	ModeBatched
)

// ModeOf tells from its header how a request or an answer carries events. A structured or batched type that is not JSON, and a compressed
// body, is an *UnsupportedError.
func ModeOf(h http.Header) (Mode, error) {
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return 0, &UnsupportedError{Problem: "Content-Encoding: send the body uncompressed", Encoding: true}
	}
	contentType := h.Get("Content-Type")
	if isFamily(contentType) {
		return structuredMode(contentType)
	}
	for key := range h {
		if strings.HasPrefix(key, "Ce-") {
			return ModeBinary, nil
		}
	}
	return ModePlain, nil
}

func structuredMode(contentType string) (Mode, error) {
	media, params, _ := strings.Cut(contentType, ";")
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if value = strings.Trim(value, `"`); strings.EqualFold(name, "charset") && !strings.EqualFold(value, "utf-8") {
			return 0, &UnsupportedError{Problem: "Content-Type: the charset of a structured event must be utf-8"}
		}
	}
	switch media = strings.TrimSpace(media); {
	case strings.EqualFold(media, Structured):
		return ModeStructured, nil
	case strings.EqualFold(media, Batched):
		return ModeBatched, nil
	}
	return 0, &UnsupportedError{Problem: "Content-Type: of the structured and batched types only " + Structured + " and " + Batched + " are read"}
}

// Read makes messages of a request or an answer; batch says whether it was a batch, which may be empty. What came in with a reserved name
// (wb…) is dropped. The data alias body. Errors: *UnsupportedError (415), *message.BatchError (bad members; the others are returned in
// their places, as message.ParseJSONBatch does), else malformed (400).
func Read(h http.Header, body []byte, d Defaults) (ms []message.Message, batch bool, err error) {
	for _, name := range [...]string{"Content-Type", "Content-Encoding", "Idempotency-Key", "Traceparent"} {
		if len(h[name]) > 1 {
			return nil, false, fmt.Errorf("header %s: is given twice", name)
		}
	}
	mode, err := ModeOf(h)
	if err != nil {
		return nil, false, err
	}
	if mode == ModeBatched {
		ms, err = message.ParseJSONBatch(body)
		for i := range ms {
			if ms[i].ID != "" {
				finish(h, &ms[i])
			}
		}
		return ms, true, err
	}
	var m message.Message
	switch mode {
	case ModeStructured:
		m, err = message.ParseJSON(body)
	case ModeBinary:
		m, err = readBinary(h)
	default:
		m, err = readPlain(h, d)
	}
	if err != nil {
		return nil, false, err
	}
	if mode != ModeStructured && len(body) > 0 {
		m.Data = body
	}
	finish(h, &m)
	return []message.Message{m}, false, nil
}

// finish drops what only Waybill may set and carries the trace on that the request came with.
func finish(h http.Header, m *message.Message) {
	*m = m.Without(message.Reserved)
	parent := h.Get("Traceparent")
	if m.Attribute(message.TraceParent) != "" || !validTraceParent(parent) {
		return
	}
	m.Attributes = append(m.Attributes, message.Attribute{Name: message.TraceParent, Value: parent})
	if state := strings.Join(h["Tracestate"], ","); state != "" && len(state) <= 512 && isPrintable(state) && m.Attribute(message.TraceState) == "" {
		m.Attributes = append(m.Attributes, message.Attribute{Name: message.TraceState, Value: state})
	}
}

// validTraceParent holds s against the W3C recommendation: version-trace-parent-flags in lower-case hex. An invalid one is ignored, as it says.
func validTraceParent(s string) bool {
	if len(s) < 55 || len(s) > 55 && (s[:2] == "00" || s[55] != '-' || len(s) > 256) || s[:2] == "ff" || !isPrintable(s) {
		return false
	}
	for i := range 55 {
		c := s[i]
		if i == 2 || i == 35 || i == 52 {
			if c != '-' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s[3:35] != "00000000000000000000000000000000" && s[36:52] != "0000000000000000"
}

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

func readBinary(h http.Header) (message.Message, error) {
	m := message.Message{DataContentType: h.Get("Content-Type")}
	count, size := 0, 0
	for key, values := range h {
		if !strings.HasPrefix(key, "Ce-") {
			continue
		}
		// Check counts exactly, after the decoding; this keeps hostile headers from costing much. As many more may be what Waybill adds.
		if count, size = count+1, size+len(key)+len(values[0]); count > 2*message.MaxAttributes || size > 6*message.MaxAttributeBytes {
			return m, &message.AttributeError{Attribute: "attributes", Problem: fmt.Sprintf("an event may have %d of them, with %d bytes at the most",
				message.MaxAttributes, message.MaxAttributeBytes)}
		}
		name := attributeName(key[3:])
		switch {
		case !message.ValidName(name):
			return m, &message.AttributeError{Attribute: fmt.Sprintf("%.64q", key), Problem: "is no attribute; names have letters and digits only"}
		case len(values) > 1:
			return m, &message.AttributeError{Attribute: name, Problem: "is given twice"}
		case name == "datacontenttype":
			return m, &message.AttributeError{Attribute: name, Problem: "is the header Content-Type in binary mode"}
		}
		value, ok := decode(values[0])
		switch {
		case !ok:
			return m, &message.AttributeError{Attribute: name, Problem: "is not percent-encoded UTF-8"}
		case name == "specversion":
			if value != message.SpecVersion {
				return m, &message.AttributeError{Attribute: name, Problem: `must be "` + message.SpecVersion + `"`}
			}
		case value == "" && !message.Reserved(name):
			return m, &message.AttributeError{Attribute: name, Problem: "must not be empty; leave it out instead"}
		default:
			m.Set(name, value)
		}
	}
	if h["Ce-Specversion"] == nil {
		return m, &message.AttributeError{Attribute: "specversion", Problem: `is required beside other ce- headers and must be "` + message.SpecVersion + `"`}
	}
	sortAttributes(m.Attributes)
	err := m.Check()
	return m, err
}

// sortAttributes gives the attributes one order: a header map has none.
func sortAttributes(as []message.Attribute) {
	for i := 1; i < len(as); i++ { // few of them: insertion
		for j := i; j > 0 && as[j].Name < as[j-1].Name; j-- {
			as[j], as[j-1] = as[j-1], as[j]
		}
	}
}

func readPlain(h http.Header, d Defaults) (message.Message, error) {
	m := message.Message{Type: d.Type, Source: d.Source, DataContentType: h.Get("Content-Type")}
	if keys, given := h["Idempotency-Key"]; given {
		m.ID = keys[0]
		if n := len(m.ID); n >= 2 && m.ID[0] == '"' && m.ID[n-1] == '"' { // a structured field's string
			m.ID = string(unquote([]byte(m.ID[1 : n-1])))
		}
		if m.ID == "" {
			return m, fmt.Errorf("header Idempotency-Key: must not be empty; leave it out instead")
		}
	} else {
		m.ID = d.NewID()
	}
	err := m.Check()
	return m, err
}

// WriteHeader writes m's attributes in binary mode: ce- headers, Content-Type, and traceparent and tracestate beside theirs so that HTTP
// tracing goes on. No other header is touched. What serves Waybill alone (message.Internal) stays out.
func WriteHeader(h http.Header, m *message.Message) {
	values := make([]string, 0, 12+len(m.Attributes)) // one allocation; each header's value is a slice of it
	put := func(key, value string) {
		values = append(values, value)
		h[key] = values[len(values)-1 : len(values) : len(values)]
	}
	put("Ce-Specversion", message.SpecVersion)
	put("Ce-Id", encode(m.ID))
	put("Ce-Source", encode(m.Source))
	put("Ce-Type", encode(m.Type))
	for _, o := range [...]struct{ key, value string }{
		{"Ce-Subject", m.Subject}, {"Ce-Time", m.Time}, {"Ce-Dataschema", m.DataSchema}, {"Ce-Partitionkey", m.Key},
	} {
		if o.value != "" {
			put(o.key, encode(o.value))
		}
	}
	switch {
	case m.DataContentType == "":
	case isPrintable(m.DataContentType):
		put("Content-Type", m.DataContentType)
	default: // from somebody else's publisher; it must not become a header that HTTP forbids
		put("Content-Type", encode(m.DataContentType))
	}
	for i := range m.Attributes {
		a := &m.Attributes[i]
		if message.Internal(a.Name) || !message.ValidName(a.Name) {
			continue
		}
		put(headerKey(a.Name), encode(a.Value))
		switch a.Name {
		case message.TraceParent:
			if validTraceParent(a.Value) {
				put("Traceparent", a.Value)
			}
		case message.TraceState:
			if isPrintable(a.Value) {
				put("Tracestate", a.Value)
			}
		}
	}
}

// headerKey is the canonical header of an extension attribute.
func headerKey(name string) string {
	switch name { // the common ones, without an allocation
	case message.TraceParent:
		return "Ce-Traceparent"
	case message.TraceState:
		return "Ce-Tracestate"
	case message.ExpiryTime:
		return "Ce-Expirytime"
	}
	key := append(make([]byte, 0, 64), "Ce-"...)
	key = append(key, name...)
	if c := key[3]; c >= 'a' && c <= 'z' {
		key[3] = c - 'a' + 'A'
	}
	return string(key)
}

// attributeName undoes headerKey. The common names cost nothing.
func attributeName(suffix string) string {
	switch suffix {
	case "Specversion":
		return "specversion"
	case "Id":
		return "id"
	case "Source":
		return "source"
	case "Type":
		return "type"
	case "Subject":
		return "subject"
	case "Time":
		return "time"
	case "Dataschema":
		return "dataschema"
	case "Partitionkey":
		return message.PartitionKey
	case "Traceparent":
		return message.TraceParent
	}
	return strings.ToLower(suffix)
}

// IsEvent reports whether an answer with this header says that it carries an event or a batch of them, and not a plain body; also in a
// representation or an encoding that Read does not read, so that such an event is not taken for nothing.
func IsEvent(h http.Header) bool {
	return isFamily(h.Get("Content-Type")) || h["Ce-Specversion"] != nil
}

func isFamily(contentType string) bool {
	return len(contentType) >= len(family) && strings.EqualFold(contentType[:len(family)], family)
}

func mustEncode(c byte) bool { return c <= ' ' || c > '~' || c == '"' || c == '%' }

// encode percent-encodes what the binding asks for: space, double quote, percent, and all outside of printable ASCII.
func encode(s string) string {
	n := 0
	for i := range len(s) {
		if mustEncode(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; mustEncode(c) {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

// decode undoes encode and, before that, the quotes that HTTP allows around a value. A percent sign that begins no sequence stands for
// itself. ok is false when the result is not UTF-8.
func decode(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 && (s == "" || s[0] != '"') {
		return s, utf8.ValidString(s)
	}
	b := []byte(s)
	if n := len(b); n >= 2 && b[0] == '"' && b[n-1] == '"' {
		b = unquote(b[1 : n-1])
	}
	if bytes.IndexByte(b, '%') >= 0 {
		out := b[:0]
		for i := 0; i < len(b); i++ {
			if b[i] == '%' && i+2 < len(b) && isHex(b[i+1]) && isHex(b[i+2]) {
				out = append(out, hexValue(b[i+1])<<4|hexValue(b[i+2]))
				i += 2
			} else {
				out = append(out, b[i])
			}
		}
		b = out
	}
	return string(b), utf8.Valid(b)
}

func unquote(b []byte) []byte {
	out := b[:0]
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) {
			i++
		}
		out = append(out, b[i])
	}
	return out
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func hexValue(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}
