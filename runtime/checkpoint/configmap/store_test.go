package configmap

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// server stands for an API server that has one ConfigMap and checks versions, tokens and paths as the real one does.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	object  map[string]any // nil: not there
	version int
	writes  int
	// refuse answers the next requests with these statuses; 0 lets one through and cuts the connection before the answer.
	refuse []int
}

func serve(t *testing.T) *server {
	s := &server{object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{
		"name": "rates", "namespace": "shop", "labels": map[string]any{"a": "b"}, "managedFields": []any{map[string]any{"manager": "waybill"}}}}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(code int, message string) {
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "message": message})
	}
	cut := false
	if len(s.refuse) > 0 {
		code := s.refuse[0]
		s.refuse = s.refuse[1:]
		if cut = code == 0; !cut {
			fail(code, "not now")
			return
		}
	}
	switch {
	case r.Header.Get("Authorization") != "Bearer t0ken":
		fail(401, "Unauthorized")
		return
	case r.URL.Path != "/api/v1/namespaces/shop/configmaps/rates" || s.object == nil:
		fail(404, `configmaps "rates" not found`)
		return
	case r.Method == http.MethodPut:
		body, _ := io.ReadAll(r.Body)
		var o map[string]any
		if err := json.Unmarshal(body, &o); err != nil {
			fail(400, err.Error())
			return
		}
		if o["metadata"].(map[string]any)["resourceVersion"] != strconv.Itoa(s.version) {
			fail(409, "the object has been modified")
			return
		}
		s.object = o
		s.writes++
		s.touch()
	}
	if cut {
		panic(http.ErrAbortHandler)
	}
	s.object["metadata"].(map[string]any)["resourceVersion"] = strconv.Itoa(s.version)
	json.NewEncoder(w).Encode(s.object)
}

func (s *server) touch() { s.version++ }

func (s *server) change(f func(o map[string]any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.object)
	s.touch()
}

func (s *server) document() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, _ := s.object["data"].(map[string]any)
	return data[plan.CheckpointKey]
}

func (s *server) store(log io.Writer) checkpoint.Store {
	api := NewAPI(s.URL+"/", s.Client(), func() ([]byte, error) { return []byte("t0ken\n"), nil })
	return New(api, "shop", "rates", slog.New(slog.NewTextHandler(log, nil)))
}

func save(t *testing.T, s checkpoint.Store, doc string) {
	t.Helper()
	if err := s.Save(t.Context(), []byte(doc)); err != nil {
		t.Fatalf("Save(%s): %v", doc, err)
	}
}

func TestWhatIsSavedIsLoaded(t *testing.T) {
	srv := serve(t)
	s := srv.store(io.Discard)
	if doc, err := s.Load(t.Context()); doc != nil || err != nil {
		t.Fatalf("of an empty ConfigMap: %s, %v", doc, err)
	}
	save(t, s, `{"n":1}`)
	save(t, s, `{"n":1}`) // equal: not written again
	save(t, s, `{"n":2}`)
	if srv.writes != 2 {
		t.Errorf("%d writes", srv.writes)
	}
	if doc, err := srv.store(io.Discard).Load(t.Context()); string(doc) != `{"n":2}` || err != nil {
		t.Errorf("another process loads %s, %v", doc, err)
	}
	meta := srv.object["metadata"].(map[string]any)
	if meta["labels"].(map[string]any)["a"] != "b" || meta["managedFields"] == nil {
		t.Errorf("what is not ours was not kept: %v", meta)
	}
	if err := s.Save(t.Context(), bytes.Repeat([]byte("x"), checkpoint.MaxBytes+1)); err == nil || srv.writes != 2 {
		t.Errorf("a document that is too large: %v", err)
	}
}

func TestAnotherPollersDocumentIsAConflict(t *testing.T) {
	srv := serve(t)
	one, two := srv.store(io.Discard), srv.store(io.Discard)
	for _, s := range []checkpoint.Store{one, two} {
		if _, err := s.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	save(t, one, `{"n":1}`)
	if err := two.Save(t.Context(), []byte(`{"n":9}`)); !errors.Is(err, checkpoint.ErrConflict) || !strings.Contains(err.Error(), "shop/rates") {
		t.Fatalf("the second poller's Save: %v", err)
	}
	if srv.document() != `{"n":1}` {
		t.Errorf("the document is %v", srv.document())
	}
}

func TestChangesBesideTheDocumentAreNoConflict(t *testing.T) {
	srv := serve(t)
	s := srv.store(io.Discard)
	save(t, s, `{"n":1}`)
	srv.change(func(o map[string]any) { o["metadata"].(map[string]any)["labels"] = map[string]any{"new": "label"} })
	save(t, s, `{"n":2}`)
	// Somebody removed it: what we know is the truth.
	srv.change(func(o map[string]any) { o["data"] = nil })
	save(t, s, `{"n":3}`)
	if labels := srv.object["metadata"].(map[string]any)["labels"].(map[string]any); srv.document() != `{"n":3}` || labels["new"] != "label" {
		t.Errorf("%v, labels %v", srv.document(), labels)
	}
}

func TestAWriteOfUnknownFateIsNoConflict(t *testing.T) {
	srv := serve(t)
	s := srv.store(io.Discard)
	save(t, s, `{"n":1}`)
	srv.refuse = []int{0} // written, and the answer is lost
	if err := s.Save(t.Context(), []byte(`{"n":2}`)); err == nil || errors.Is(err, checkpoint.ErrConflict) {
		t.Fatalf("a lost answer: %v", err)
	}
	if srv.document() != `{"n":2}` {
		t.Fatal("the test is wrong: it was not written")
	}
	srv.refuse = []int{500} // and one that is not written
	if err := s.Save(t.Context(), []byte(`{"n":3}`)); err == nil {
		t.Fatal("500 is no success")
	}
	save(t, s, `{"n":4}`)
	if srv.document() != `{"n":4}` {
		t.Errorf("the document is %v", srv.document())
	}
}

func TestLoadWaitsForTheOperator(t *testing.T) {
	srv := serve(t)
	there := srv.object
	srv.object = nil
	appears := make(chan struct{})
	var once sync.Once
	log := writer(func(p []byte) (int, error) { // it was said that there is none: now it comes
		once.Do(func() {
			if !strings.Contains(string(p), "not found") || strings.Contains(string(p), "t0ken") {
				t.Errorf("said: %s", p)
			}
			go func() {
				srv.mu.Lock()
				srv.object = there
				srv.refuse = []int{403, 503} // the right to read it, and the server, come later
				srv.mu.Unlock()
				close(appears)
			}()
		})
		return len(p), nil
	})
	if doc, err := srv.store(log).Load(t.Context()); doc != nil || err != nil {
		t.Fatalf("%s, %v", doc, err)
	}
	<-appears
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestInClusterNeedsAPod(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := InCluster(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no Pod") {
		t.Errorf("got %v", err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if _, err := InCluster(t.TempDir()); err == nil || !strings.Contains(err.Error(), "certificate authority") {
		t.Errorf("got %v", err)
	}
}
