package broker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

func TestSettlementsGatherWhileOthersAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.PerMessage)
		answer, refused := make(chan struct{}), errors.New("refused")
		var mu sync.Mutex
		var calls [][]int64
		s.taking = func(list []driver.Settlement) []error {
			errs := make([]error, len(list))
			var call []int64
			for i, l := range list {
				call = append(call, l.D.Position)
				if l.D.Position == 3 {
					errs[i] = refused
				}
				if l.D.Claim != (driver.Claim{}) {
					t.Errorf("settled under claim %v", l.D.Claim)
				}
			}
			slices.Sort(call)
			mu.Lock()
			calls = append(calls, call)
			mu.Unlock()
			<-answer
			return errs
		}
		b := connect(t, s, driver.Config{})
		src, err := b.Source(t.Context(), driver.SourceSpec{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close(context.Background())
		s.add(8)
		ds := make([]driver.Delivery, 8)
		if n, err := src.Receive(t.Context(), ds); n != 8 || err != nil {
			t.Fatal(n, err)
		}
		foreign := ds[7]
		foreign.Claim.Epoch += 1 << lifeShift
		settle := func(ctx context.Context, of ...*driver.Delivery) <-chan []error {
			done := make(chan []error, 1)
			var list []driver.Settlement
			for _, d := range of {
				list = append(list, driver.Settlement{D: d})
			}
			go func() { done <- src.Settle(ctx, list) }()
			synctest.Wait()
			return done
		}
		first := settle(t.Context(), &ds[0])
		second := settle(t.Context(), &ds[1], &ds[2])
		third := settle(t.Context(), &ds[3])
		mixed := settle(t.Context(), &foreign, &ds[4])
		hasty, leave := context.WithCancel(t.Context())
		left := settle(hasty, &ds[5])
		leave()
		if errs := <-left; !errors.Is(errs[0], context.Canceled) {
			t.Errorf("who does not wait any longer: %v", errs)
		}
		none := settle(t.Context(), &foreign)
		if errs := <-none; !errors.Is(errs[0], driver.ErrStale) {
			t.Errorf("a delivery of a lost claim alone: %v", errs)
		}
		answer <- struct{}{}
		synctest.Wait()
		late := settle(t.Context(), &ds[6])
		answer <- struct{}{}
		answer <- struct{}{}

		for name, done := range map[string]<-chan []error{"first": first, "second": second, "late": late} {
			if err := errors.Join(<-done...); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if errs := <-third; !errors.Is(errs[0], refused) {
			t.Errorf("the one that is refused: %v", errs)
		}
		if errs := <-mixed; !errors.Is(errs[0], driver.ErrStale) || errs[1] != nil {
			t.Errorf("one of a lost claim beside a good one: %v", errs)
		}
		if want := [][]int64{{0}, {1, 2, 3, 4, 5}, {6}}; !slices.EqualFunc(calls, want, slices.Equal[[]int64]) {
			t.Errorf("the broker was told %v, want %v", calls, want)
		}
	})
}
