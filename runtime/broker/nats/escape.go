package nats

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"

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

// unescape undoes escape. What is no encoding stays as it is: other clients write values raw.
func unescape(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if hi, lo := hexValue(s[i+1]), hexValue(s[i+2]); hi >= 0 && lo >= 0 {
				b = append(b, byte(hi<<4|lo))
				i += 2
				continue
			}
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
