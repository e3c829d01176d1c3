package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"berth/internal/fleet"
)

// ensure returns the ID of the node's relay, which runs then. One is made if there is none.
func (r *Relays) ensure(ctx context.Context, n *fleet.Node) (string, error) {
	id, running, err := r.find(ctx, n)
	if err != nil {
		return "", err
	}
	if id == "" {
		if id, err = r.create(ctx, n); err != nil {
			return "", err
		}
	}
	if running {
		return id, nil
	}
	if err := r.ask(ctx, n, http.MethodPost, "/containers/"+id+"/start", nil, nil, nil); err != nil {
		return "", fmt.Errorf("start it: %w", err)
	}
	return id, nil
}

// find asks the engine, not the picture, for the relay: another manager may just have made it.
func (r *Relays) find(ctx context.Context, n *fleet.Node) (id string, running bool, err error) {
	var rows []struct {
		ID    string `json:"Id"`
		State string
	}
	q := url.Values{"all": {"1"}, "filters": {`{"label":["` + fleet.LabelRelay + "=" + protocol + `"]}`}}
	if err := r.ask(ctx, n, http.MethodGet, "/containers/json", q, nil, &rows); err != nil {
		return "", false, fmt.Errorf("look for one: %w", err)
	}
	for _, row := range rows {
		if row.State == "running" {
			return row.ID, true, nil
		}
		id = row.ID
	}
	return id, false, nil
}

// create makes the relay's container, and what it is made of. If another manager was faster, its relay is the one.
func (r *Relays) create(ctx context.Context, n *fleet.Node) (string, error) {
	labels := map[string]string{fleet.LabelRelay: protocol}
	volume := map[string]any{"Name": Name, "Labels": labels}
	if err := r.ask(ctx, n, http.MethodPost, "/volumes/create", nil, volume, nil); err != nil {
		return "", fmt.Errorf("make its volume: %w", err)
	}
	image := Name + ":" + r.program.Sum
	if err := r.provide(ctx, n, image); err != nil {
		return "", fmt.Errorf("bring its image: %w", err)
	}
	var made struct {
		ID string `json:"Id"`
	}
	q := url.Values{"name": {containerName(n)}}
	err := r.ask(ctx, n, http.MethodPost, "/containers/create", q, container(image, labels), &made)
	var refused *refusedError
	if errors.As(err, &refused) && refused.status == http.StatusConflict {
		id, _, findErr := r.find(ctx, n)
		if id != "" || findErr != nil {
			return id, findErr
		}
	}
	if err != nil {
		return "", fmt.Errorf("create it: %w", err)
	}
	r.log.Info("made a relay", "node", n.Name, "container", made.ID)
	return made.ID, nil
}

// containerName is the same for all managers, so that two of them at the same time make one relay.
func containerName(n *fleet.Node) string {
	sum := sha256.Sum256([]byte(n.EngineID))
	return Name + "-" + hex.EncodeToString(sum[:6])
}

// container is the relay: the binary, its volume, and nothing that it could reach or use besides.
func container(image string, labels map[string]string) map[string]any {
	return map[string]any{
		"Image": image, "Labels": labels, "User": "0", "Cmd": []string{program, Command, "--listen", folder + "/" + socketFile},
		"HostConfig": map[string]any{
			"Binds":          []string{Name + ":" + folder},
			"RestartPolicy":  map[string]any{"Name": "always"},
			"NetworkMode":    "none",
			"ReadonlyRootfs": true,
			"CapDrop":        []string{"ALL"},
			"SecurityOpt":    []string{"no-new-privileges"},
			"LogConfig":      map[string]any{"Type": "json-file", "Config": map[string]string{"max-size": "1m"}},
		},
	}
}

// provide makes sure that the node has the image.
func (r *Relays) provide(ctx context.Context, n *fleet.Node, image string) error {
	err := r.ask(ctx, n, http.MethodGet, "/images/"+image+"/json", nil, nil, nil)
	var refused *refusedError
	if !errors.As(err, &refused) || refused.status != http.StatusNotFound {
		return err
	}
	tree, err := r.program.open()
	if err != nil {
		return err
	}
	defer tree.Close()
	repo, tag, _ := strings.Cut(image, ":")
	q := url.Values{"fromSrc": {"-"}, "repo": {repo}, "tag": {tag}}
	req, err := request(ctx, n, http.MethodPost, "/images/create", q, nil)
	if err != nil {
		return err
	}
	req.Body, req.ContentLength = tree, -1
	req.Header.Set("Content-Type", "application/x-tar")
	res, err := r.fleet.Do(ctx, n.ID, req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return refusal(res)
	}
	return imported(res.Body)
}

// imported reads the progress of an import to its end, which may be a failure although the status said 200.
func imported(progress io.Reader) error {
	for lines := json.NewDecoder(progress); ; {
		var line struct {
			Error  string
			Status string
		}
		switch err := lines.Decode(&line); {
		case err == io.EOF: //nolint:errorlint // the decoder returns it bare
			return nil
		case err != nil:
			return err
		case line.Error != "":
			return errors.New(line.Error)
		}
	}
}

// refusedError is an engine's answer that is none of those that were hoped for.
type refusedError struct {
	status  int
	message string
}

func (e *refusedError) Error() string { return e.message }

func refusal(res *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return err
	}
	var m struct{ Message string }
	if json.Unmarshal(b, &m) != nil || m.Message == "" {
		m.Message = res.Status
	}
	return &refusedError{res.StatusCode, m.Message}
}

func request(ctx context.Context, n *fleet.Node, method, path string, q url.Values, body any) (*http.Request, error) {
	var b bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&b).Encode(body); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://docker", &b)
	if err != nil {
		return nil, err
	}
	r.URL.Path, r.URL.RawQuery = n.Path(n.API, path), q.Encode()
	r.Header.Set("Content-Type", "application/json")
	return r, nil
}

// ask makes one request; answers from 400 on are errors. answer may be nil.
func (r *Relays) ask(ctx context.Context, n *fleet.Node, method, path string, q url.Values, body, answer any) error {
	req, err := request(ctx, n, method, path, q, body)
	if err != nil {
		return err
	}
	res, err := r.fleet.Do(ctx, n.ID, req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= http.StatusBadRequest {
		return refusal(res)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(answer)
}
