package message

// DedupID names what a broker may store only once: a publish that is repeated with the same DedupID is the same message. It is printable
// ASCII, its parts separated by one space, and as long as they are: a driver whose broker takes less hashes it.
//
// Source and id are enough for what clients publish. Two things of ours keep an event's source and id and yet are no repetition of it:
//
//   - A dead letter, which is one for each origin and death: wborigin is added, and wbdeath or else wbtime.
//   - A request that waits for an answer. Whoever asks again after the expiry, or for something else, asks anew: wbcorrelation and
//     expirytime are added.
func (m *Message) DedupID() string {
	var kind byte
	var first, second string
	for i := range m.Attributes {
		if m.Attributes[i].Name == Reason {
			kind, first = 'd', m.Attribute(Origin)
			if second = m.Attribute(Death); second == "" {
				second = m.Attribute(DeadTime)
			}
			break
		}
	}
	if kind == 0 {
		if first = m.Attribute(Correlation); first != "" {
			kind, second = 'r', m.Attribute(ExpiryTime)
		}
	}
	n := encodedLen(m.ID) + 1 + encodedLen(m.Source)
	if kind != 0 {
		n += 4 + encodedLen(first) + encodedLen(second)
	}
	b := make([]byte, 0, n)
	b = appendEncoded(b, m.ID)
	b = appendEncoded(append(b, ' '), m.Source)
	if kind != 0 {
		b = appendEncoded(append(b, ' ', kind, ' '), first)
		b = appendEncoded(append(b, ' '), second)
	}
	return string(b)
}

// plain reports whether a byte stands for itself in a DedupID; the others are percent-encoded, as in CloudEvents' HTTP headers (3.1.3.2).
func plain(c byte) bool { return c > ' ' && c < 0x7f && c != '"' && c != '%' }

func encodedLen(s string) int {
	n := len(s)
	for i := 0; i < len(s); i++ {
		if !plain(s[i]) {
			n += 2
		}
	}
	return n
}

func appendEncoded(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}
