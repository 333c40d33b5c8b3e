package nats

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/waybill-dev/waybill/runtime/message"
)

const hexDigits = "0123456789ABCDEF"

// verbatim reports whether a byte stands for itself in a header value; CloudEvents' HTTP binding, 3.1.3.2, percent-encodes all others.
func verbatim(c byte) bool { return c > ' ' && c < 0x7f && c != '"' && c != '%' }

// escape is the percent-encoding of a CloudEvents header value.
func escape(s string) string {
	n := 0
	for i := 0; i < len(s); i++ {
		if !verbatim(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := 0; i < len(s); i++ {
		if c := s[i]; verbatim(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(b)
}

// unescape undoes escape and, before that, the quotes that the binding allows around a value (3.1.3.2). Clients that write values raw are
// about: a percent sign that begins no sequence stands for itself, and what would not be UTF-8 stays as it is.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 && (s == "" || s[0] != '"') {
		return s
	}
	b := make([]byte, 0, len(s))
	from := s
	if n := len(s); n >= 2 && s[0] == '"' && s[n-1] == '"' {
		from = unquote(s[1 : n-1])
	}
	for i := 0; i < len(from); i++ {
		if from[i] == '%' && i+2 < len(from) {
			if hi, lo := hexValue(from[i+1]), hexValue(from[i+2]); hi >= 0 && lo >= 0 {
				b = append(b, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		b = append(b, from[i])
	}
	if !utf8.Valid(b) {
		return s
	}
	return string(b)
}

// unquote is the text of a quoted string (RFC 9110, 5.6.4) without its quotes.
func unquote(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// dedupID is what JetStream drops repetitions by: the message's own, or a hash of it where it is long.
func dedupID(m *message.Message) string {
	id := m.DedupID()
	if len(id) <= maxMsgID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// sequenceID names a message that brought no CloudEvents id.
func sequenceID(natsID, stream string, seq uint64) string {
	if natsID != "" {
		return natsID
	}
	return stream + "/" + strconv.FormatUint(seq, 10)
}
