package outbound

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/waybill-dev/waybill/runtime/plan"
)

// BenchmarkSend is one push to a server that answers at once, beside the plain client's request of the same size.
func BenchmarkSend(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	c := New(Config{})
	defer c.Close()
	u, err := c.URL(plan.HTTPTarget{URL: s.URL})
	if err != nil {
		b.Fatal(err)
	}
	m := event()
	b.ReportAllocs()
	b.Run("waybill", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(p *testing.PB) {
			target := &Target{URL: u, Discard: true}
			for p.Next() {
				if _, err := c.Send(b.Context(), target, m); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("raw", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		raw := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
		defer raw.CloseIdleConnections()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				answer, err := raw.Post(u.String(), "application/json", bytes.NewReader(m.Data))
				if err != nil {
					b.Error(err)
					continue
				}
				_ = answer.Body.Close()
			}
		})
	})
}
