package poll

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// maxSeen items are remembered of one round. Twice as many may be held while one round's items replace the other's.
const maxSeen = 4096

// seen remembers the content of each item of the last round in 16 bytes: 8 of a hash of its id, 6 of a hash of its content and 2 that count
// its changes. The count makes what came before an item's content differ when contents alternate, and so its next id.
type seen struct {
	items map[uint64]entry
	// round tells which items this round has brought; marked is their number.
	round  uint32
	marked int
}

type entry struct {
	value uint64 // content and changes
	round uint32
}

const changes = 1<<16 - 1

func newSeen() *seen { return &seen{items: map[uint64]entry{}, round: 1} }

func hash64(parts ...[]byte) uint64 { return binary.BigEndian.Uint64(digest(parts...)) }

// digest hashes parts so that no two lists of them are the same to it.
func digest(parts ...[]byte) []byte {
	h := sha256.New()
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write(p)
	}
	return h.Sum(nil)
}

// before is what is known of an item: ok is false for one that is new.
func (s *seen) before(item uint64) (value uint64, ok bool) {
	e, ok := s.items[item]
	return e.value, ok
}

func sameContent(value, content uint64) bool { return value>>16 == content>>16 }

// record remembers an item's content, after it was published or found unchanged, and marks it as brought by this round.
func (s *seen) record(item, content uint64) {
	e, known := s.items[item]
	if !known || !sameContent(e.value, content) {
		e.value = content&^changes | (e.value+1)&changes
	}
	if !known || e.round != s.round {
		s.marked++
	}
	e.round = s.round
	s.items[item] = e
}

// marks reports whether the item would be one more of this round.
func (s *seen) marks(item uint64) bool {
	e, known := s.items[item]
	return !known || e.round != s.round
}

// begin starts a round.
func (s *seen) begin() {
	s.round++
	s.marked = 0
}

// forget drops what this round did not bring and reports whether that was anything.
func (s *seen) forget() bool {
	n := len(s.items)
	maps.DeleteFunc(s.items, func(_ uint64, e entry) bool { return e.round != s.round })
	return len(s.items) != n
}

func (s *seen) MarshalText() ([]byte, error) {
	raw := make([]byte, 0, 16*len(s.items))
	for _, item := range slices.Sorted(maps.Keys(s.items)) {
		raw = binary.BigEndian.AppendUint64(raw, item)
		raw = binary.BigEndian.AppendUint64(raw, s.items[item].value)
	}
	return base64.StdEncoding.AppendEncode(nil, raw), nil
}

func (s *seen) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil || len(raw)%16 != 0 {
		return errors.New("the items seen cannot be read")
	}
	*s = *newSeen()
	for ; len(raw) > 0; raw = raw[16:] {
		s.items[binary.BigEndian.Uint64(raw)] = entry{value: binary.BigEndian.Uint64(raw[8:])}
	}
	return nil
}
