package overlay

import (
	"archive/tar"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"berth/internal/fleet"
)

// host is an engine whose containers show files of their host.
type host struct {
	Fleet
	folders string            // that can be mounted
	files   map[string]string // as the probe's container sees them
	asked   []string
}

func (h *host) Do(_ context.Context, _ string, r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	path := r.URL.Query().Get("path")
	h.asked = append(h.asked, strings.TrimSpace(r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1.41")+" "+path))
	switch r.Method {
	case http.MethodPost:
		b := new(strings.Builder)
		_ = r.Write(b) // to a string
		if strings.Contains(b.String(), `"/lib/modules"`) && !strings.Contains(h.folders, "/lib/modules") {
			http.Error(w, `{"message":"bind source path does not exist: /lib/modules"}`, http.StatusBadRequest)
			break
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = w.WriteString(`{"Id":"probe"}`)
	case http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	default:
		text, ok := h.files[path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			break
		}
		t := tar.NewWriter(w)
		_ = t.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: int64(len(text))})
		_, _ = t.Write([]byte(text))
		_ = t.Close()
	}
	return w.Result(), nil
}

func TestProbeESP(t *testing.T) {
	for name, tt := range map[string]struct {
		folders    string
		files      map[string]string
		has, known bool
	}{
		"loaded":              {files: map[string]string{"/loaded/esp4": ""}, has: true, known: true},
		"built in":            {folders: "/lib/modules", files: map[string]string{"/modules/6.1/modules.builtin": "kernel/net/ipv4/esp4.ko\n"}, has: true, known: true},
		"a module":            {folders: "/lib/modules", files: map[string]string{"/modules/6.1/modules.builtin": "", "/modules/6.1/modules.dep": "kernel/net/ipv4/esp4.ko.xz: kernel/net/xfrm/xfrm_algo.ko.xz\n"}, has: true, known: true},
		"none":                {folders: "/lib/modules", files: map[string]string{"/modules/6.1/modules.builtin": "kernel/net/ipv4/ah4.ko\n", "/modules/6.1/modules.dep": ""}, known: true},
		"another kernel's":    {folders: "/lib/modules", files: map[string]string{"/modules/6.2/modules.builtin": "kernel/net/ipv4/esp4.ko\n"}},
		"a host without them": {},
	} {
		t.Run(name, func(t *testing.T) {
			h := &host{folders: tt.folders, files: tt.files}
			k := &Keeper{eng: newCaller(h, "1.41")}
			n := &fleet.Node{Name: "n1", API: "1.41", KernelVersion: "6.1", Images: []*fleet.Image{{ID: "sha256:1"}}}
			has, known, err := k.probeESP(t.Context(), n)
			if has != tt.has || known != tt.known || err != nil {
				t.Errorf("has %t, known %t, %v; want %t, %t", has, known, err, tt.has, tt.known)
			}
			if last := h.asked[len(h.asked)-1]; last != "DELETE /containers/probe" {
				t.Errorf("the probe was left: %v", h.asked)
			}
		})
	}
	if _, known, err := (&Keeper{}).probeESP(t.Context(), &fleet.Node{}); known || err != nil {
		t.Errorf("without an image: %t, %v", known, err)
	}
}
