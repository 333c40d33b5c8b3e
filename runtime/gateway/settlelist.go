package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/reply"
)

const (
	// maxLeases bounds one list of acks, maxListBytes the body that it comes in.
	maxLeases    = 1000
	maxListBytes = maxLeases * (maxTokenBytes + 8)
)

type leaseResult struct {
	Lease  string `json:"lease"`
	Status int    `json:"status"`
}

// listed is a lease of a list, and where in the list its tokens stand: a lease that was extended has several.
type listed struct {
	lease lease
	at    []int
	held  *held
	err   error
}

// settleList serves POST /leases/ack: the broker is asked once for all of them, and each is answered by itself.
func (m *Mailbox) settleList(w http.ResponseWriter, r *http.Request) {
	body, reserved, ok := m.readBody(w, r, maxListBytes)
	if !ok {
		return
	}
	defer m.budget.give(reserved)
	var list struct {
		Leases []string `json:"leases"`
	}
	if err := json.Unmarshal(body, &list); err != nil || list.Leases == nil {
		m.refuse(w, badArgument(`the body must be {"leases": ["…"]}`))
		return
	}
	if len(list.Leases) > maxLeases {
		m.refuse(w, badArgument("leases: at most "+strconv.Itoa(maxLeases)+" at once"))
		return
	}
	as, err := m.sealer.aeads()
	if err != nil {
		m.refuseLease(w, err)
		return
	}
	results := make([]leaseResult, len(list.Leases))
	byKey := make(map[[8]byte]*listed, len(list.Leases))
	for i, token := range list.Leases {
		results[i] = leaseResult{Lease: token}
		l, err := m.sealer.open(as, token)
		if err != nil {
			results[i].Status = m.leaseStatus(err)
			continue
		}
		one := byKey[l.key]
		if one == nil {
			one = &listed{lease: l}
			byKey[l.key] = one
		}
		if l.expires.After(one.lease.expires) {
			one.lease = l
		}
		one.at = append(one.at, i)
	}
	leases := make([]*listed, 0, len(byKey))
	for _, one := range byKey {
		leases = append(leases, one)
	}
	m.ackAll(r, leases)
	for _, one := range leases {
		status := m.leaseStatus(one.err)
		for _, i := range one.at {
			results[i].Status = status
		}
	}
	answer(w, http.StatusOK, map[string]any{"results": results})
}

// ackAll acknowledges leases, all different, and notes at each how that went.
func (m *Mailbox) ackAll(r *http.Request, leases []*listed) {
	// In one order everywhere, or two lists with the same leases could wait for each other.
	slices.SortFunc(leases, func(a, b *listed) int { return bytes.Compare(a.lease.key[:], b.lease.key[:]) })
	var taken []*listed
	defer func() {
		for _, one := range taken {
			one.held.note.mu.Unlock()
		}
	}()
	var ds []driver.Delivery
	for _, one := range leases {
		if one.held, one.err = m.take(one.lease, acked); one.err == nil {
			taken = append(taken, one)
			ds = append(ds, one.held.delivery)
		}
	}
	if len(taken) == 0 {
		return
	}
	first := ds[0].Deadline
	for i := range ds {
		if ds[i].Deadline.Before(first) {
			first = ds[i].Deadline
		}
	}
	ctx, cancel := m.bounded(r, first)
	defer cancel()
	telling := true // until it fails: then the broker is away for the others too
	for i, err := range m.settle(ctx, ds, driver.Done) {
		if taken[i].err = err; err != nil {
			m.log.Warn("cannot settle a lease", "error", err)
			continue
		}
		m.stats.acked.Add(1)
		m.book.settled(taken[i].held.note, acked)
		telling = telling && m.tell(ctx, taken[i].held.lease.request(), reply.Answer{Kind: reply.Processed})
	}
}
