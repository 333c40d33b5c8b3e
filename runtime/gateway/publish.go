package gateway

import (
	"net/http"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
)

// States of an event that was taken.
const (
	stateStored    = "Stored"
	stateAccepted  = "Accepted"
	stateProcessed = "Processed"
)

type taken struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

type takenBatch struct {
	State string   `json:"state"`
	IDs   []string `json:"ids"`
}

// receipt is the answer to a request whose events are taken.
func (in *intake) receipt(state string) any {
	if !in.batch {
		return taken{ID: in.events[0].ID, State: state}
	}
	b := takenBatch{State: state, IDs: make([]string, len(in.events))}
	for i := range in.events {
		b.IDs[i] = in.events[i].ID
	}
	return b
}

// publish stores the events, or with async takes them into memory, and answers. It closes in.
func (f *front) publish(w http.ResponseWriter, r *http.Request, b *broker.Broker, in *intake, async bool) {
	defer in.close()
	if async {
		body := in.receipt(stateAccepted)
		if len(in.events) > 0 {
			if _, err := f.store.put(in, true); err != nil {
				f.refuse(w, storeProblem(err, ""))
				return
			}
		}
		answer(w, http.StatusAccepted, body)
		return
	}
	body := in.receipt(stateStored)
	if len(in.events) > 0 {
		if f.refuseAway(w, b) {
			return
		}
		if errs := f.store.stored(r.Context(), in); errs != nil {
			f.refuse(w, in.notStored(errs))
			return
		}
	}
	answer(w, http.StatusAccepted, body)
}

// refuseAway answers 503 and reports true while the broker is away.
func (f *front) refuseAway(w http.ResponseWriter, b *broker.Broker) bool {
	if b.Away() == nil {
		return false
	}
	f.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "BrokerAway", Detail: "the broker is away; try again", RetryAfter: 2 * time.Second})
	return true
}

// notStored is the answer when not all events were stored: of a batch it says which were.
func (in *intake) notStored(errs []error) problem {
	if !in.batch {
		return storeProblem(errs[0], in.events[0].ID)
	}
	var p problem
	results := make([]result, len(errs))
	same := true
	for i, err := range errs {
		if err == nil {
			results[i] = result{ID: in.events[i].ID, Status: http.StatusAccepted}
			same = false
			continue
		}
		one := storeProblem(err, "")
		results[i] = result{ID: in.events[i].ID, Status: one.Status, Detail: one.Detail}
		if p.Status != 0 && p.Status != one.Status {
			same = false
		}
		p = one
	}
	if !same {
		p = problem{Status: http.StatusServiceUnavailable, Reason: "StoredInPart", RetryAfter: 2 * time.Second,
			Detail: "not all events of the batch were stored; repeat the whole batch with the same ids"}
	}
	p.Results = results
	return p
}
