package gateway

import (
	"net/http"
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

// readPrefer reads the preferences that are known here; others are ignored, as the RFC has it. ok is false for a wait that is no number.
func readPrefer(h http.Header) (p preference, ok bool) {
	for _, line := range h["Prefer"] {
		for part := range strings.SplitSeq(line, ",") {
			token, _, _ := strings.Cut(part, ";")
			name, value, _ := strings.Cut(token, "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "respond-async":
				p.async = true
			case "wait":
				n, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
				if err != nil || n < 1 {
					return p, false
				}
				p.wait = min(time.Duration(min(n, 3600))*time.Second, maxWait)
			}
		}
	}
	return p, true
}

// readDuration reads a query parameter such as 20s; a bare number is seconds. Above limit it is limit if clamp is set, else wrong.
func readDuration(s string, limit time.Duration, clamp bool) (time.Duration, bool) {
	d, err := time.ParseDuration(s)
	if err != nil {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return 0, false
		}
		d = time.Duration(n) * time.Second
	}
	if d < 0 || d > limit && !clamp {
		return 0, false
	}
	return min(d, limit), true
}
