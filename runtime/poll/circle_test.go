package poll

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/runtime/plan"
)

func TestPagesThatGoInACircleEndTheRound(t *testing.T) {
	for path, pagination := range map[string]*plan.Pagination{"/link": paginations["/link"], "/cursor": paginations["/cursor"]} {
		t.Run(path, func(t *testing.T) {
			r := newRig(t, plan.Poller{Detect: changed, Items: cel("body.items"), ID: cel("item"), HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: path}, Pagination: pagination}})
			requests, mended := 0, false
			next := map[string]string{"": "b", "b": "c", "c": "b"}
			r.handler = func(w http.ResponseWriter, q *http.Request) {
				requests++
				at := q.URL.Query().Get("cursor")
				to := next[at]
				if mended && at == "c" {
					to = ""
				}
				if path == "/link" && to != "" {
					w.Header().Set("Link", "<?cursor="+to+">; rel=next")
				}
				respond(fmt.Sprintf(`{"items":["of %s"],"next":%q}`, at, to))(w, q)
			}
			for range 2 {
				requests = 0
				if f := r.once(PageUnreadable); !strings.Contains(f.Error(), "in a circle") || requests != 3 {
					t.Errorf("%d requests, %v", requests, f)
				}
			}
			r.want(data, `"of "`, `"of b"`, `"of c"`)
			mended = true
			r.once("")
			r.want(data)
		})
	}
}
