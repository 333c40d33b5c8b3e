package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkPublishStored measures requests that are answered once the broker has the event on disk, 64 at a time.
func BenchmarkPublishStored(b *testing.B) {
	r := newRig(b)
	h, _ := r.topic()
	body := `{"customer":"c-17","type":"order.created","total":120.50,"lines":[{"sku":"a","qty":3},{"sku":"b","qty":1}]}`
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if w.Code != http.StatusAccepted {
				b.Errorf("got %d %s", w.Code, w.Body)
			}
		}
	})
}
