package overlay

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"berth/internal/enginecall"
	"berth/internal/fleet"
)

// espModule is what the kernel needs for encrypted networks.
const espModule = "esp4"

// probeESP looks whether a node's kernel has ESP, loaded, built in or as a module. No engine tells, and an encrypted network without it
// loses packets and says nothing. A container that is made of any image and never started shows the host's files. known is false
// where nothing can be seen: there is no image, or no such files.
func (k *Keeper) probeESP(ctx context.Context, n *fleet.Node) (has, known bool, err error) {
	if len(n.Images) == 0 {
		return false, false, nil
	}
	var name [6]byte
	_, _ = rand.Read(name[:]) // never fails: crypto/rand.Read ends the program instead
	mount := func(source, target string) map[string]any {
		return map[string]any{"Type": "bind", "Source": source, "Target": target, "ReadOnly": true}
	}
	body := func(mounts ...any) map[string]any {
		return map[string]any{
			"Image": n.Images[0].ID, "Cmd": []string{"true"}, "NetworkDisabled": true,
			"HostConfig": map[string]any{"NetworkMode": "none", "Mounts": mounts},
		}
	}
	q := url.Values{"name": {"berth-probe-" + hex.EncodeToString(name[:])}}
	var made struct {
		ID string `json:"Id"`
	}
	loaded := mount("/sys/module", "/loaded")
	err = k.eng.Exchange(ctx, callLimit, n, http.MethodPost, "/containers/create", q, body(loaded, mount("/lib/modules", "/modules")), &made)
	modules := err == nil
	if enginecall.IsStatus(err, http.StatusBadRequest) { // there is no such folder
		err = k.eng.Exchange(ctx, callLimit, n, http.MethodPost, "/containers/create", q, body(loaded), &made)
	}
	if err != nil {
		return false, false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
		defer cancel()
		gone := k.eng.Exchange(ctx, callLimit, n, http.MethodDelete, "/containers/"+made.ID, url.Values{"force": {"1"}}, nil, nil)
		err = errors.Join(err, gone)
	}()
	if has, err = k.eng.exists(ctx, n, made.ID, "/loaded/"+espModule); has || err != nil || !modules {
		return has, has, err
	}
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		text, err := k.eng.file(ctx, n, made.ID, "/modules/"+n.KernelVersion+"/"+list)
		if err != nil {
			return false, false, err
		}
		known = known || text != nil
		if bytes.Contains(text, []byte("/"+espModule+".ko")) {
			return true, true, nil
		}
	}
	return false, known, nil
}

// exists tells whether a container has a file.
func (e caller) exists(ctx context.Context, n *fleet.Node, id, path string) (bool, error) {
	err := e.Exchange(ctx, callLimit, n, http.MethodHead, "/containers/"+id+"/archive", url.Values{"path": {path}}, nil, nil)
	if enginecall.IsStatus(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil, err
}

// fileLimit is more than any list of modules has.
const fileLimit = 16 << 20

// file reads a file of a container; nil if there is none.
func (e caller) file(ctx context.Context, n *fleet.Node, id, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callLimit, fmt.Errorf("no answer within %s", callLimit))
	defer cancel()
	res, err := e.Open(ctx, n, http.MethodGet, "/containers/"+id+"/archive", url.Values{"path": {path}}, nil, "")
	if enginecall.IsStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	t := tar.NewReader(io.LimitReader(res.Body, fileLimit))
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("node %s: read %s: %w", n.Name, path, err)
		}
		if h.Typeflag == tar.TypeReg {
			b, err := io.ReadAll(t)
			if err != nil {
				return nil, fmt.Errorf("node %s: read %s: %w", n.Name, path, err)
			}
			return append([]byte{}, b...), nil
		}
	}
}

// probeRetry is when a node of which nothing was seen is looked at again.
const probeRetry = time.Minute

// probe looks at one node that has not been looked at, if new networks are to be encrypted.
func (k *Keeper) probe(ctx context.Context, p *picture) {
	if !k.settings().Encrypted || k.check(ctx) != nil {
		return
	}
	for _, n := range p.healthy() {
		at, looked := k.memo.probed[n.ID]
		if !n.Swarm.Active() || looked && (k.memo.esp[n.ID] != "" || p.now.Sub(at) < probeRetry) {
			continue
		}
		has, known, err := k.probeESP(ctx, n)
		k.memo.probed[n.ID] = p.now
		switch {
		case err != nil:
			k.o.Log.Debug("whether a kernel has ESP is not known", "node", n.Name, "error", err)
		case has:
			k.memo.esp[n.ID] = "yes"
		case known:
			k.memo.esp[n.ID] = "no"
			k.o.Log.Warn(noESP(n))
		case len(n.Images) > 0:
			k.memo.esp[n.ID] = "unknown" // its files do not tell
		}
		return // the next one in the next round
	}
}

func noESP(n *fleet.Node) string {
	return "overlay networks: the kernel of node " + n.Name + " (" + strings.TrimSpace(n.KernelVersion) + ") has no ESP: containers there are not reached in encrypted networks; " +
		"install the module " + espModule + ", or make networks without encryption"
}
