package consul

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a Consul as its HTTP API is described: KV with blocking queries, check-and-set, locks and transactions; sessions with TTL,
// behavior and lock delay; tokens. Its sessions end after twice their TTL, as they do in Consul.
type fake struct {
	addr   string
	minTTL time.Duration
	server *http.Server
	done   chan struct{}

	mu       sync.Mutex
	index    uint64
	pairs    map[string]*pair
	graves   map[string]uint64 // deleted key → index
	sessions map[string]*fakeSession
	delayed  map[string]time.Time // key → until when nobody locks it
	changed  chan struct{}
	locked   string          // a prefix that wants a token
	tokens   map[string]bool // known token → it may
}

// pair is as the API shows it: Session is left out where there is none.
type pair struct {
	LockIndex   uint64
	Key         string
	Flags       uint64
	Value       []byte
	Session     string `json:",omitempty"`
	CreateIndex uint64
	ModifyIndex uint64
}

type fakeSession struct {
	ID, Name, Behavior, TTL string
	LockDelay               time.Duration
	ttl                     time.Duration
	timer                   *time.Timer
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{minTTL: minSession, tokens: map[string]bool{}}
	f.forget()
	f.start(t)
	t.Cleanup(func() {
		f.stop(t)
		f.forget()
	})
	return f
}

func (f *fake) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sessions {
		s.timer.Stop()
	}
	f.index, f.pairs, f.graves, f.sessions = 7, map[string]*pair{}, map[string]uint64{}, map[string]*fakeSession{}
	f.delayed, f.changed = map[string]time.Time{}, make(chan struct{})
}

func (f *fake) start(t *testing.T) {
	t.Helper()
	if f.addr == "" {
		f.addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	f.addr = l.Addr().String()
	f.server, f.done = &http.Server{Handler: f.handler()}, make(chan struct{})
	go func() {
		defer close(f.done)
		_ = f.server.Serve(l)
	}()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sessions { // a new leader gives them all of their time
		f.wind(s)
	}
}

func (f *fake) stop(*testing.T) {
	if f.server == nil {
		return
	}
	_ = f.server.Close()
	<-f.done
	f.server = nil
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sessions {
		s.timer.Stop()
	}
}

func (f *fake) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(http.ResponseWriter, *http.Request) error{
		"PUT /v1/session/create":       f.create,
		"PUT /v1/session/renew/{id}":   f.renew,
		"PUT /v1/session/destroy/{id}": f.destroy,
		"GET /v1/kv/{key...}":          f.get,
		"PUT /v1/kv/{key...}":          f.put,
		"DELETE /v1/kv/{key...}":       f.remove,
		"PUT /v1/txn":                  f.txn,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				code, text, _ := strings.Cut(err.Error(), " ")
				n, _ := strconv.Atoi(code)
				http.Error(w, text, n)
			}
		})
	}
	return mux
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

// touched makes the next index; f.mu is held.
func (f *fake) touched() uint64 {
	f.index++
	close(f.changed)
	f.changed = make(chan struct{})
	return f.index
}

// may says whether the caller's token allows a key; f.mu is held.
func (f *fake) may(r *http.Request, key string) (bool, error) {
	token := r.Header.Get("X-Consul-Token")
	allowed, known := f.tokens[token]
	if token != "" && !known {
		return false, fmt.Errorf("403 ACL not found")
	}
	return f.locked == "" || !strings.HasPrefix(key, f.locked) || allowed, nil
}

func (f *fake) forbid(r *http.Request, key string) error {
	ok, err := f.may(r, key)
	if err == nil && !ok {
		err = fmt.Errorf("403 Permission denied: token lacks permission 'key:write' on %q", key)
	}
	return err
}

func (f *fake) create(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Name, Behavior, TTL, LockDelay string
		NodeChecks                     []string
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return fmt.Errorf("400 Request decode failed: %w", err)
	}
	ttl, err := time.ParseDuration(body.TTL)
	if err != nil || ttl < f.minTTL || ttl > 24*time.Hour {
		return fmt.Errorf("400 Invalid Session TTL '%s', must be between [%v=24h]", body.TTL, f.minTTL)
	}
	if body.NodeChecks == nil || len(body.NodeChecks) > 0 {
		return fmt.Errorf("500 the node's health would end the session")
	}
	if body.Behavior != "release" && body.Behavior != "delete" {
		return fmt.Errorf("400 Invalid Behavior setting '%s'", body.Behavior)
	}
	delay, err := time.ParseDuration(body.LockDelay)
	if body.LockDelay == "" {
		delay, err = 15*time.Second, nil
	}
	if err != nil {
		return fmt.Errorf("400 Request decode failed: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &fakeSession{ID: fmt.Sprintf("s-%d", f.touched()), Name: body.Name, Behavior: body.Behavior, TTL: body.TTL, ttl: ttl, LockDelay: delay}
	f.sessions[s.ID] = s
	f.wind(s)
	return answer(w, map[string]string{"ID": s.ID})
}

// wind gives a session its time; f.mu is held.
func (f *fake) wind(s *fakeSession) {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(2*s.ttl, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.end(s)
	})
}

// end invalidates a session; f.mu is held.
func (f *fake) end(s *fakeSession) {
	if f.sessions[s.ID] != s {
		return
	}
	s.timer.Stop()
	delete(f.sessions, s.ID)
	for key, p := range f.pairs {
		if p.Session != s.ID {
			continue
		}
		if s.Behavior == "delete" {
			f.kill(key)
		} else {
			p.Session, p.ModifyIndex = "", f.touched()
		}
		f.delayed[key] = time.Now().Add(s.LockDelay)
	}
}

func (f *fake) kill(key string) {
	if f.pairs[key] != nil {
		delete(f.pairs, key)
		f.graves[key] = f.touched()
	}
}

func (f *fake) renew(w http.ResponseWriter, r *http.Request) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[r.PathValue("id")]
	if s == nil {
		return fmt.Errorf("404 Session id '%s' not found", r.PathValue("id"))
	}
	f.wind(s)
	return answer(w, []*fakeSession{s})
}

func (f *fake) destroy(w http.ResponseWriter, r *http.Request) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sessions[r.PathValue("id")]; s != nil {
		f.end(s)
	}
	return answer(w, true)
}

func (f *fake) get(w http.ResponseWriter, r *http.Request) error {
	key, q := r.PathValue("key"), r.URL.Query()
	recurse := q.Has("recurse")
	wait, err := time.ParseDuration(q.Get("wait"))
	if err != nil {
		wait = 5 * time.Minute
	}
	index, err := strconv.ParseUint(q.Get("index"), 10, 64)
	if err != nil {
		wait = 0
	}
	end := time.After(wait + wait/16)
	for {
		f.mu.Lock()
		allowed, err := f.may(r, key)
		found, now := f.find(key, recurse)
		changed := f.changed
		f.mu.Unlock()
		if err != nil {
			return err
		}
		if !recurse && !allowed {
			return fmt.Errorf("403 Permission denied: token lacks permission 'key:read' on %q", key)
		}
		if now <= index && wait > 0 {
			select {
			case <-changed:
				continue
			case <-r.Context().Done():
				return nil
			case <-end:
			}
		}
		w.Header().Set("X-Consul-Index", strconv.FormatUint(now, 10))
		w.Header().Set("X-Consul-KnownLeader", "true")
		w.Header().Set("X-Consul-LastContact", "0")
		if !allowed { // lists leave out what one may not see
			w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
			found = nil
		}
		if len(found) == 0 {
			w.WriteHeader(http.StatusNotFound)
			return nil
		}
		return answer(w, found)
	}
}

// find copies what is there; f.mu is held.
func (f *fake) find(key string, recurse bool) (found []pair, index uint64) {
	for k, p := range f.pairs {
		if k == key || recurse && strings.HasPrefix(k, key) {
			found, index = append(found, *p), max(index, p.ModifyIndex)
		}
	}
	for k, at := range f.graves {
		if recurse && strings.HasPrefix(k, key) {
			index = max(index, at)
		}
	}
	slices.SortFunc(found, func(a, b pair) int { return strings.Compare(a.Key, b.Key) })
	if index == 0 {
		index = f.index
	}
	return found, index
}

func (f *fake) put(w http.ResponseWriter, r *http.Request) error {
	key, q := r.PathValue("key"), r.URL.Query()
	value, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	flags, _ := strconv.ParseUint(q.Get("flags"), 10, 64) // 0 without
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.forbid(r, key); err != nil {
		return err
	}
	switch p := f.pairs[key]; {
	case q.Has("acquire"):
		if time.Now().Before(f.delayed[key]) {
			return answer(w, false)
		}
		ok, err := f.lock(key, value, flags, q.Get("acquire"))
		if err != nil {
			return fmt.Errorf("500 %w", err)
		}
		return answer(w, ok)
	case q.Has("release"):
		if p == nil || p.Session != q.Get("release") {
			return answer(w, false)
		}
		p.Session, p.Value, p.Flags, p.ModifyIndex = "", value, flags, f.touched()
	case q.Has("cas"):
		cas, _ := strconv.ParseUint(q.Get("cas"), 10, 64)
		if p == nil && cas != 0 || p != nil && cas != p.ModifyIndex {
			return answer(w, false)
		}
		f.set(key, value, flags)
	default:
		f.set(key, value, flags)
	}
	return answer(w, true)
}

func (f *fake) set(key string, value []byte, flags uint64) *pair {
	p := f.pairs[key]
	at := f.touched()
	if p == nil {
		p = &pair{Key: key, CreateIndex: at}
		f.pairs[key] = p
		delete(f.graves, key)
	}
	p.Value, p.Flags, p.ModifyIndex = value, flags, at
	return p
}

func (f *fake) lock(key string, value []byte, flags uint64, session string) (bool, error) {
	if f.sessions[session] == nil {
		return false, fmt.Errorf("invalid session %q", session)
	}
	if p := f.pairs[key]; p != nil && p.Session != "" && p.Session != session {
		return false, nil
	}
	p := f.set(key, value, flags)
	if p.Session == "" {
		p.Session = session
		p.LockIndex++
	}
	return true, nil
}

func (f *fake) remove(w http.ResponseWriter, r *http.Request) error {
	key := r.PathValue("key")
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.forbid(r, key); err != nil {
		return err
	}
	if !r.URL.Query().Has("recurse") {
		f.kill(key)
		return answer(w, true)
	}
	at := uint64(0)
	for k := range f.pairs {
		if strings.HasPrefix(k, key) {
			delete(f.pairs, k)
			if at == 0 { // one entry of the log for all
				at = f.touched()
			}
			f.graves[k] = at
		}
	}
	return answer(w, true)
}

func (f *fake) txn(w http.ResponseWriter, r *http.Request) error {
	var ops []struct {
		KV struct {
			Verb, Key, Session string
			Value              []byte
			Flags              uint64
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&ops); err != nil {
		return fmt.Errorf("400 %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, op := range ops { // nothing is done unless all can be
		if err := f.forbid(r, op.KV.Key); err != nil {
			return err
		}
		why := ""
		switch {
		case op.KV.Verb == "delete":
		case op.KV.Verb != "lock":
			why = "unknown verb"
		case f.sessions[op.KV.Session] == nil:
			why = "invalid session"
		case time.Now().Before(f.delayed[op.KV.Key]):
			why = "due to lock delay"
		}
		if why != "" {
			w.WriteHeader(http.StatusConflict)
			return answer(w, map[string]any{"Results": nil, "Errors": []map[string]any{{"OpIndex": i, "What": why}}})
		}
	}
	for _, op := range ops {
		if op.KV.Verb == "delete" {
			delete(f.pairs, op.KV.Key) // the lock that follows is the same entry of the log
			continue
		}
		if _, err := f.lock(op.KV.Key, op.KV.Value, op.KV.Flags, op.KV.Session); err != nil {
			return fmt.Errorf("500 %w", err)
		}
	}
	return answer(w, map[string]any{"Results": []any{}, "Errors": nil})
}
