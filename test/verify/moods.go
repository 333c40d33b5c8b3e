package verify

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Answers refuses everything with a status. retryAfter is in seconds; 0: it does not say.
func Answers(status, retryAfter int) Mood {
	return func(w http.ResponseWriter, _ *http.Request, _ Mark, _ func()) bool {
		if retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		}
		w.WriteHeader(status)
		return false
	}
}

// Slow takes everything and lets the sender wait for that long before, as a handler does that works.
func Slow(d time.Duration) Mood {
	return func(_ http.ResponseWriter, r *http.Request, _ Mark, _ func()) bool {
		return wait(r.Context(), d) // a sender that waits no longer has it not taken
	}
}

// Late takes everything at once and answers so much later.
func Late(d time.Duration) Mood {
	return func(w http.ResponseWriter, r *http.Request, _ Mark, take func()) bool {
		take()
		if wait(r.Context(), d) {
			w.WriteHeader(http.StatusNoContent)
		}
		return false
	}
}

// Drops ends the connection without an answer, after it has taken the message or before.
func Drops(after bool) Mood {
	return func(_ http.ResponseWriter, _ *http.Request, _ Mark, take func()) bool {
		if after {
			take()
		}
		panic(http.ErrAbortHandler)
	}
}

// most is how often Random refuses one message: fewer times than a message has attempts.
const most = 2

// Random answers at random, but takes every message at the third time: nothing is dead-lettered for it. roll decides.
func Random(roll uint64) Mood {
	var mu sync.Mutex
	refused := map[Mark]int{}
	next := roll
	moods := []Mood{Answers(500, 0), Answers(502, 0), Answers(503, 0), Answers(503, 1), Answers(429, 1), Answers(408, 0), Answers(409, 0), Answers(404, 0), Answers(401, 0),
		Answers(301, 0), Drops(false), Drops(true)}
	return func(w http.ResponseWriter, r *http.Request, m Mark, take func()) bool {
		mu.Lock()
		next = next*6364136223846793005 + 1442695040888963407 // Knuth's
		dice := int(next>>33) % (2 * len(moods))
		if refused[m] >= most {
			dice = len(moods)
		}
		if dice < len(moods) {
			refused[m]++
		}
		mu.Unlock()
		return dice >= len(moods) || moods[dice](w, r, m, take)
	}
}
