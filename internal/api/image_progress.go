package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// message is one line of the progress that engines stream while they pull, load and import.
type message struct {
	Status         string          `json:"status,omitempty"`
	ProgressDetail json.RawMessage `json:"progressDetail,omitempty"`
	Progress       string          `json:"progress,omitempty"`
	ID             string          `json:"id,omitempty"`
	Stream         string          `json:"stream,omitempty"`
	Error          string          `json:"error,omitempty"`
	ErrorDetail    *messageError   `json:"errorDetail,omitempty"`
}

type messageError struct {
	Code    int    `json:"code,omitempty"`
	Message string `json:"message"`
}

// streamError is a failure that an engine told in its stream, after a status of 200.
type streamError struct{ message string }

func (e *streamError) Error() string { return e.message }

// checkStatus turns an answer that is no success into an error with the engine's status and text.
func checkStatus(res *http.Response) error {
	if res.StatusCode/100 == 2 {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	return &statusError{status: res.StatusCode, message: strings.TrimSpace(engineMessage(b))}
}

// readMessages reads a stream to its end. What the engine says went wrong is the error.
func readMessages(res *http.Response, each func(message)) error {
	return readLines(res, func(_ json.RawMessage, m message) {
		if each != nil {
			each(m)
		}
	})
}

// readLines is readMessages with the lines as they came. A line that tells an error is not handed on.
func readLines(res *http.Response, each func(json.RawMessage, message)) error {
	if err := checkStatus(res); err != nil {
		return err
	}
	d := json.NewDecoder(res.Body)
	for {
		var raw json.RawMessage
		err := d.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the engine's progress: %w", err)
		}
		var m message
		if err := json.Unmarshal(raw, &m); err != nil {
			return fmt.Errorf("read the engine's progress: %w", err)
		}
		switch {
		case m.ErrorDetail != nil && m.ErrorDetail.Message != "":
			return &streamError{m.ErrorDetail.Message}
		case m.Error != "":
			return &streamError{m.Error}
		}
		each(raw, m)
	}
}

// progress is one answer that several nodes contribute to. The head goes out with the first line, so until then an error
// can still have a status.
type progress struct {
	w http.ResponseWriter

	mu    sync.Mutex
	begun bool
	shown map[string]shownLine // by node
}

type shownLine struct {
	text string
	at   time.Time
}

func newProgress(w http.ResponseWriter) *progress {
	return &progress{w: w, shown: map[string]shownLine{}}
}

func (p *progress) line(m message) { p.raw(rawjson.Encode(m)) }

// raw writes a line. That the client has left shows in the request's context.
func (p *progress) raw(line []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.write(line)
}

func (p *progress) write(line []byte) {
	if !p.begun {
		p.begun = true
		p.w.Header().Set("Content-Type", "application/json")
		p.w.WriteHeader(http.StatusOK)
	}
	if _, err := p.w.Write(append(line, '\r', '\n')); err == nil {
		_ = http.NewResponseController(p.w).Flush()
	}
}

// node writes how far a node has come, as classic Swarm did, and leaves out what says nothing new: layers report each
// percent.
func (p *progress) node(n *fleet.Node, what string, m message) {
	if m.Status == "" {
		return
	}
	text := what + "... : " + m.Status
	detail := m.ProgressDetail
	moves := len(detail) > len("{}")
	if !moves {
		detail = json.RawMessage("{}")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	was, now := p.shown[n.ID], time.Now()
	if was.text == text && (!moves || now.Sub(was.at) < 100*time.Millisecond) {
		return
	}
	p.shown[n.ID] = shownLine{text, now}
	p.write(rawjson.Encode(message{Status: text, ProgressDetail: detail, Progress: m.Progress, ID: n.Name}))
}

// fail ends the answer: with a status if nothing was written yet and the failure has one, else in the stream.
func (p *progress) fail(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.begun && !errors.As(err, new(*streamError)) {
		return err
	}
	p.write(rawjson.Encode(message{Error: err.Error(), ErrorDetail: &messageError{Message: err.Error()}}))
	return nil
}

// worst is the failure to tell when all nodes failed: an engine's own words rather than a lost connection.
func worst(errs []error) error {
	var first error
	for _, err := range errs {
		switch {
		case err == nil:
		case errors.As(err, new(*statusError)), errors.As(err, new(*streamError)):
			return err
		case first == nil:
			first = err
		}
	}
	return first
}

// onNodes works on nodes at once, at most limit of them, and returns the errors in the order of the nodes.
func onNodes(nodes []*fleet.Node, limit int, work func(i int, n *fleet.Node) error) []error {
	errs := make([]error, len(nodes))
	slots := make(chan struct{}, limit)
	var wg sync.WaitGroup
	for i, n := range nodes {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = work(i, n)
		})
	}
	wg.Wait()
	return errs
}
