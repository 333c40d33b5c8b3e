package gateway

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/waybill-dev/waybill/runtime/message"
)

// leaseMargin is how long before the broker's own deadline a lease ends: what we forward must not come too late there, for the broker
// would settle the message although somebody else has it by then.
const leaseMargin = 2 * time.Second

// maxTokenBytes bounds a token before anything is computed. What a lease holds is bounded so that each token that we make lies below it.
const (
	maxTokenBytes   = 4096
	maxTokenAddress = 1024 // of a reply address with its correlation
	maxTokenName    = 256  // of an id, and of a source
)

const tokenVersion = 1

// A lease is what a token holds: everything that is needed to settle the message from any replica.
type lease struct {
	key     [8]byte // names this lease
	issued  time.Time
	expires time.Time // ours, leaseMargin before the broker's
	count   int       // the broker's delivery count
	handle  []byte
	// Of a request that waits for an answer; else empty.
	replyTo, correlation, id, source string
}

// newLease is a lease on a message that the broker has delivered.
func newLease(m *message.Message, handle []byte, count int, now, expires time.Time) lease {
	l := lease{issued: now, expires: expires, count: count, handle: handle}
	_, _ = rand.Read(l.key[:]) // never fails
	to, correlation := m.Attribute(message.ReplyTo), m.Attribute(message.Correlation)
	if to != "" && len(to)+len(correlation) <= maxTokenAddress { // longer ones are none of ours: there is nobody to answer
		l.replyTo, l.correlation, l.id, l.source = to, correlation, brief(m.ID), brief(m.Source)
	}
	return l
}

// brief cuts what a token holds only so that a person can find the request: an id may have kilobytes, and a token that is too long to be sent
// back would be a message that nobody can settle.
func brief(s string) string {
	if len(s) > maxTokenName {
		return strings.ToValidUTF8(s[:maxTokenName], "")
	}
	return s
}

// request is what a reply needs to know of the message.
func (l *lease) request() *message.Message {
	m := &message.Message{ID: l.id, Source: l.source}
	if l.replyTo != "" {
		m.Attributes = []message.Attribute{{Name: message.ReplyTo, Value: l.replyTo}, {Name: message.Correlation, Value: l.correlation}}
	}
	return m
}

// errNoLease: a token that was not made here, or for another mailbox, or with a key that is gone.
var errNoLease = errors.New("no lease")

// sealer makes and opens tokens of one mailbox. A token is sealed, not only signed: a handle is an address that we publish to.
type sealer struct {
	keys    func() ([][]byte, error)
	mailbox []byte // bound into each token: one of another mailbox does not open
	latest  atomic.Pointer[derived]
}

// derived is what was made of keys, which seldom change.
type derived struct {
	keys  [][]byte
	aeads []cipher.AEAD
}

func (s *sealer) aeads() ([]cipher.AEAD, error) {
	keys, err := s.keys()
	if err != nil {
		return nil, fmt.Errorf("the keys of leases: %w", err)
	}
	if d := s.latest.Load(); d != nil && slices.EqualFunc(d.keys, keys, hmac.Equal) {
		return d.aeads, nil
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key for leases")
	}
	d := &derived{}
	for _, k := range keys {
		if len(k) < 16 {
			return nil, errors.New("a key of leases has fewer than 16 bytes")
		}
		secret, err := hkdf.Key(sha256.New, k, nil, "waybill lease", chacha20poly1305.KeySize)
		if err != nil {
			return nil, err
		}
		a, err := chacha20poly1305.NewX(secret) // its nonces may be random for ever
		if err != nil {
			return nil, err
		}
		d.keys, d.aeads = append(d.keys, bytes.Clone(k)), append(d.aeads, a)
	}
	s.latest.Store(d)
	return d.aeads, nil
}

// seal makes the token of a lease with the first of keys.
func (s *sealer) seal(a cipher.AEAD, l *lease) string {
	plain := make([]byte, 0, 64+len(l.handle)+len(l.replyTo)+len(l.correlation)+len(l.id)+len(l.source))
	plain = append(plain, l.key[:]...)
	plain = appendNumber(plain, l.issued.UnixMilli())
	plain = appendNumber(plain, l.expires.UnixMilli())
	plain = appendNumber(plain, int64(l.count))
	plain = appendField(plain, string(l.handle))
	for _, f := range [...]string{l.replyTo, l.correlation, l.id, l.source} {
		plain = appendField(plain, f)
	}
	sealed := make([]byte, 1+a.NonceSize(), 1+a.NonceSize()+len(plain)+a.Overhead())
	sealed[0] = tokenVersion
	_, _ = rand.Read(sealed[1:])
	sealed = a.Seal(sealed, sealed[1:], plain, s.mailbox)
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// open reads a token that seal made, here or on another replica, with any of keys. It does not look at the time.
func (s *sealer) open(as []cipher.AEAD, token string) (lease, error) {
	var l lease
	if len(token) > maxTokenBytes || strings.ContainsAny(token, "\r\n") { // which the decoder passes over
		return l, errNoLease
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(sealed) < 1+chacha20poly1305.NonceSizeX || sealed[0] != tokenVersion {
		return l, errNoLease
	}
	nonce, body := sealed[1:1+chacha20poly1305.NonceSizeX], sealed[1+chacha20poly1305.NonceSizeX:]
	for _, a := range as {
		if plain, err := a.Open(nil, nonce, body, s.mailbox); err == nil {
			return decodeLease(plain)
		}
	}
	return l, errNoLease
}

func decodeLease(plain []byte) (lease, error) {
	var l lease
	if len(plain) < len(l.key) {
		return l, errNoLease
	}
	r := fieldReader{b: plain[copy(l.key[:], plain):]}
	l.issued = time.UnixMilli(r.number())
	l.expires = time.UnixMilli(r.number())
	l.count = int(r.number())
	l.handle = r.field()
	l.replyTo, l.correlation, l.id, l.source = string(r.field()), string(r.field()), string(r.field()), string(r.field())
	if r.bad {
		return l, errNoLease
	}
	return l, nil
}

func appendField(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendNumber(b []byte, n int64) []byte { return binary.AppendVarint(b, n) }

type fieldReader struct {
	b   []byte
	bad bool
}

func (r *fieldReader) number() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *fieldReader) field() []byte {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > uint64(len(r.b)-n) {
		r.bad = true
		return nil
	}
	f := r.b[n : n+int(v)]
	r.b = r.b[n+int(v):]
	return f
}
