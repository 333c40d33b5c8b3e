package engine

import (
	"net/http"
	"sync/atomic"
)

// hungUp is the status of requests whose client left before it was answered; there is none in HTTP, and many servers write this one.
const hungUp = 499

// answers counts what a gateway answered, by status.
type answers [600]atomic.Uint64

// observed counts, and traces, what next answers.
func (u *unit) observed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, end := u.engine.host.Tracing.Request(r, u.plan.Resource)
		a := answer{ResponseWriter: w}
		defer func() {
			status := a.status
			switch {
			case status > 0:
			case r.Context().Err() != nil:
				status = hungUp
			default:
				status = http.StatusOK // as net/http does
			}
			u.answers[min(status, len(u.answers)-1)].Add(1)
			end(status)
		}()
		next.ServeHTTP(&a, r)
	})
}

// counts are the statuses that there were, and how often.
func (a *answers) counts() map[int]uint64 {
	out := map[int]uint64{}
	for status := range a {
		if n := a[status].Load(); n > 0 {
			out[status] = n
		}
	}
	return out
}

// answer remembers the status of one.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
