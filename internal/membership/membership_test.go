package membership

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string) *Service {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func members(t *testing.T, s *Service, token string) string {
	t.Helper()
	addrs, _, err := s.Members(token)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(addrs, " ")
}

func TestMembersComeAndGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	s := open(t, path)
	now := time.Now()
	s.now = func() time.Time { return now }
	token, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	for addr, ttl := range map[string]time.Duration{"a:1": 10 * time.Second, "b:2": time.Hour, "c:3": time.Hour} {
		if err := s.Put(token, addr, ttl); err != nil {
			t.Fatal(err)
		}
	}
	if got := members(t, s, token); got != "a:1 b:2 c:3" {
		t.Errorf("members: %s", got)
	}
	now = now.Add(11 * time.Second)
	if err := s.Remove(token, "c:3"); err != nil {
		t.Fatal(err)
	}
	if got := members(t, s, token); got != "b:2" {
		t.Errorf("after a's time and c's leave: %s", got)
	}
	if _, _, err := s.Members(strings.Repeat("0", 32)); !errors.Is(err, ErrUnknown) {
		t.Errorf("another token: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	s.now = func() time.Time { return now }
	if got := members(t, s, token); got != "b:2" {
		t.Errorf("after a restart: %s", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
}

func call(t *testing.T, method, url, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(b)), res.Header
}

func TestCalls(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "tokens.db"))
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	_, token, _ := call(t, http.MethodPost, server.URL+"/clusters", "")
	url := server.URL + "/clusters/" + token
	for _, tt := range []struct {
		method, url, body string
		want              int
	}{
		{http.MethodPost, url + "?ttl=60", "10.0.0.1:2376", 200},
		{http.MethodPost, url + "?ttl=60", "no port", 400},
		{http.MethodPost, url + "?ttl=60", strings.Repeat("x", 4096) + ":1", 400},
		{http.MethodPost, url + "?ttl=0", "10.0.0.1:2376", 400},
		{http.MethodPost, url, "10.0.0.1:2376", 400},
		{http.MethodPost, server.URL + "/clusters/..%2f..%2fetc?ttl=60", "10.0.0.1:2376", 404},
		{http.MethodGet, server.URL + "/clusters/" + strings.Repeat("0", 32), "", 404},
		{http.MethodDelete, url + "/10.9.9.9:1", "", 200},
	} {
		if got, body, _ := call(t, tt.method, tt.url, tt.body); got != tt.want {
			t.Errorf("%s %s: %d %s, want %d", tt.method, tt.url, got, body, tt.want)
		}
	}
	code, list, head := call(t, http.MethodGet, url, "")
	if code != 200 || list != `["10.0.0.1:2376"]` {
		t.Fatalf("GET: %d %s", code, list)
	}
	if code, _, _ := call(t, http.MethodGet, url, "", "If-None-Match", head.Get("Etag")); code != http.StatusNotModified {
		t.Errorf("unchanged: %d", code)
	}
	got := make(chan string, 1)
	go func() {
		_, list, _ := call(t, http.MethodGet, url+"?wait=30", "", "If-None-Match", head.Get("Etag"))
		got <- list
	}()
	if code, body, _ := call(t, http.MethodPost, url+"?ttl=60", "10.0.0.2:2376"); code != 200 {
		t.Fatalf("POST: %d %s", code, body)
	}
	select {
	case list := <-got:
		if !slices.Contains([]string{`["10.0.0.1:2376","10.0.0.2:2376"]`}, list) {
			t.Errorf("the reader who waited got %s", list)
		}
	case <-time.After(20 * time.Second):
		t.Error("the reader who waited was not told")
	}
}
