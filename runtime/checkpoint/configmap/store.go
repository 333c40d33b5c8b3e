// Package configmap keeps a poller's checkpoint in a ConfigMap of Kubernetes. Whoever made the ConfigMap has also given the right to read and
// replace it, and nothing else; so this speaks to the API server in two requests, with the standard library alone.
package configmap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/plan"
)

const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 10 * time.Second
	// saves that are tried before a Save gives up; each but the last was overtaken by a change of something else in the ConfigMap.
	maxSaves = 5
)

// New keeps the document in the ConfigMap namespace/name, which has to exist. Every write is of the version that was read; a document that
// somebody else has put there meanwhile is checkpoint.ErrConflict. What is changed beside it, labels for one, is kept and is no conflict.
func New(api *API, namespace, name string, log *slog.Logger) checkpoint.Store {
	return &store{api: api, namespace: namespace, name: name, log: log.With("configMap", namespace+"/"+name)}
}

type store struct {
	api             *API
	namespace, name string
	log             *slog.Logger

	current object
	known   []byte // the document in current
	// tried are the documents that were sent since the last write that was confirmed: any of them may have arrived.
	tried [][]byte
}

// Load waits for the ConfigMap and for the right to read it while ctx lives: the operator may still be at it.
func (s *store) Load(ctx context.Context) ([]byte, error) {
	said := ""
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		err := s.read(ctx)
		if err == nil {
			return bytes.Clone(s.known), nil
		}
		if ctx.Err() != nil {
			return nil, s.wrap(err)
		}
		if text := err.Error(); text != said {
			said = text
			s.log.Warn("The checkpoint cannot be read; trying again until it can", "error", text)
		}
		select {
		case <-ctx.Done():
			return nil, s.wrap(err)
		case <-time.After(pause):
		}
	}
}

// Save replaces the document.
func (s *store) Save(ctx context.Context, doc []byte) error {
	if len(doc) > checkpoint.MaxBytes {
		return fmt.Errorf("checkpoint: %d bytes are more than the %d that a store takes", len(doc), checkpoint.MaxBytes)
	}
	if s.current == nil {
		if err := s.read(ctx); err != nil {
			return s.wrap(err)
		}
	}
	var err error
	for range maxSaves {
		if s.known != nil && len(s.tried) == 0 && bytes.Equal(doc, s.known) {
			return nil
		}
		if err = s.write(ctx, doc); err == nil {
			return nil
		}
		status, ok := errors.AsType[*statusError](err)
		if !ok || status.code != http.StatusConflict {
			return s.wrap(err)
		}
		// Something was changed: beside the document, which does not matter; the document by a write of ours that was thought to have failed;
		// or it was removed by somebody who has no other to put there. All else is another poller's.
		ours := append([][]byte{nil, s.known}, s.tried...)
		if err := s.read(ctx); err != nil {
			return s.wrap(err)
		}
		if !slices.ContainsFunc(ours, func(d []byte) bool { return bytes.Equal(d, s.known) }) {
			return s.wrap(checkpoint.ErrConflict)
		}
	}
	return s.wrap(err)
}

func (s *store) wrap(err error) error {
	return fmt.Errorf("checkpoint in ConfigMap %s/%s: %w", s.namespace, s.name, err)
}

func (s *store) read(ctx context.Context) error {
	o, err := s.api.get(ctx, s.namespace, s.name)
	if err != nil {
		return err
	}
	return s.hold(o)
}

// hold notes what the ConfigMap holds now.
func (s *store) hold(o object) error {
	data, err := o.data()
	if err != nil {
		return err
	}
	s.current, s.known = o, nil
	if doc := data[plan.CheckpointKey]; doc != "" {
		s.known = []byte(doc)
	}
	return nil
}

func (o object) data() (map[string]string, error) {
	data := map[string]string{}
	if raw, ok := o["data"]; ok {
		if err := json.Unmarshal(raw, &data); err != nil {
			return nil, fmt.Errorf("its data: %w", err)
		}
	}
	return data, nil
}

func (s *store) write(ctx context.Context, doc []byte) error {
	data, err := s.current.data()
	if err != nil {
		return err
	}
	if data == nil { // it was null
		data = map[string]string{}
	}
	data[plan.CheckpointKey] = string(doc)
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	next := maps.Clone(s.current)
	next["data"] = raw
	if !slices.ContainsFunc(s.tried, func(t []byte) bool { return bytes.Equal(t, doc) }) {
		s.tried = append(s.tried, bytes.Clone(doc))
	}
	o, err := s.api.put(ctx, s.namespace, s.name, next)
	if err != nil {
		return err
	}
	s.tried = nil
	return s.hold(o)
}
