package secret

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
)

// generationRounds make it slow to try passwords against a generation; a worker and the operator pay for them once a rotation.
const generationRounds = 20_000

// Generation names the content of a Secret's keys, so that who mounted it and who watches it can tell whether they mean the same. It tells
// nothing else: it is a slow hash, salted with the Secret's name and cut to eight digits, which many values share.
func Generation(namespace, name string, data map[string][]byte) string {
	h := sha256.New()
	var length [8]byte
	part := func(b []byte) {
		binary.BigEndian.PutUint64(length[:], uint64(len(b)))
		h.Write(length[:])
		h.Write(b)
	}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		part([]byte(key))
		part(data[key])
	}
	sum, err := pbkdf2.Key(sha256.New, string(h.Sum(nil)), []byte("waybill/"+namespace+"/"+name), generationRounds, 4)
	if err != nil {
		return "" // only where a standard forbids such parameters: then nobody can tell generations apart
	}
	return hex.EncodeToString(sum)
}
