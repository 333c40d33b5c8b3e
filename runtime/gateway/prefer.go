package gateway

import (
	"errors"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxWait bounds every wait that a caller may ask for.
const maxWait = 60 * time.Second

// preference is what a caller asked for with Prefer (RFC 7240).
type preference struct {
	async bool
	wait  time.Duration // 0: none
}

// readPrefer reads the preferences that are known here; others are ignored, and of one that is given twice the first counts, as the RFC has
// it. ok is false for a wait that is no number.
func readPrefer(h http.Header) (p preference, ok bool) {
	ok = true
	given := false
	for _, line := range h["Prefer"] {
		for line != "" {
			var part string
			part, line = cutUnquoted(line, ',')
			part, _ = cutUnquoted(part, ';')
			name, value, _ := strings.Cut(part, "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "respond-async":
				p.async = true
			case "wait":
				if given {
					continue
				}
				given = true
				n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 64)
				if errors.Is(err, strconv.ErrRange) {
					err = nil // n is more than any bound
				}
				if err != nil || n < 1 {
					ok = false
					continue
				}
				p.wait = time.Duration(min(n, uint64(maxWait/time.Second))) * time.Second
			}
		}
	}
	return p, ok
}

// cutUnquoted cuts s at the first sep that is not within a quoted string.
func cutUnquoted(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case !quoted && c == sep:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// longDuration is one, or a number of seconds, that may be too long for a time.Duration.
var longDuration = regexp.MustCompile(`^(\d+|\+?\d+(\.\d*)?(ms|[smh]))$`)

// readDuration reads a query parameter such as 20s; a bare number is seconds. Above limit it is limit if clamp is set, else wrong.
func readDuration(s string, limit time.Duration, clamp bool) (time.Duration, bool) {
	d, err := time.ParseDuration(s)
	if err != nil {
		n, err := strconv.ParseUint(s, 10, 31)
		switch {
		case err == nil:
			d = time.Duration(n) * time.Second
		case longDuration.MatchString(s):
			d = math.MaxInt64
		default:
			return 0, false
		}
	}
	if d < 0 || d > limit && !clamp {
		return 0, false
	}
	return min(d, limit), true
}
