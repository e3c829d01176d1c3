package term

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// colours are for telling machines apart that are made at the same time.
var colours = [...]string{"36", "33", "35", "32", "34", "31"}

// coloured tells whether there may be colours where out leads.
func coloured(out io.Writer) bool { return IsTerminal(out) && os.Getenv("NO_COLOR") == "" }

// barEvery is how often a bar is told of where it cannot be drawn anew.
const barEvery = 5 * time.Second

// plainView is a line per step, each with the time since the work began.
type plainView struct {
	quietView // it is never drawn anew
	out       io.Writer
	began     time.Time
	width     int
	colour    map[string]string    // by name; empty where nobody sees colours
	told      map[string]time.Time // when a bar was told of last, by name and what it is
}

func newPlainView(out io.Writer, names []string, began time.Time) *plainView {
	v := &plainView{out: out, began: began, colour: map[string]string{}, told: map[string]time.Time{}}
	paint := coloured(out)
	for i, n := range names {
		v.width = max(v.width, len(n))
		if paint {
			v.colour[n] = colours[i%len(colours)]
		}
	}
	return v
}

func (v *plainView) step(name, text string) {
	label := "(" + name + ")"
	if c := v.colour[name]; c != "" {
		label = "\x1b[" + c + "m" + label + "\x1b[0m"
	}
	pad := strings.Repeat(" ", max(0, v.width-len(name)))
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		// A terminal that is gone is no reason to stop the work.
		fmt.Fprintf(v.out, "%s%s %5.1fs  %s\n", label, pad, time.Since(v.began).Seconds(), clean(line)) //nolint:errcheck
	}
}

func (v *plainView) bar(name, what string, done, total int64) {
	if throttled(v.told, name+"\x00"+what, done, total) {
		return
	}
	v.step(name, what+": "+amount(done, total))
}

// throttled tells whether a bar was told of a moment ago. Its beginning is always told, and so is its end.
func throttled(told map[string]time.Time, key string, done, total int64) bool {
	last, before := told[key]
	if before && time.Since(last) < barEvery && (done < total || total <= 0) {
		return true
	}
	if before && done >= total && total > 0 && last.IsZero() { // its end was told
		return true
	}
	told[key] = time.Now()
	if done >= total && total > 0 {
		told[key] = time.Time{}
	}
	return false
}

// jsonView is an object per event.
type jsonView struct {
	quietView
	out   io.Writer
	began time.Time
	told  map[string]time.Time
}

// event is what jsonView writes.
type event struct {
	Time    time.Time `json:"time"`
	Name    string    `json:"name"`
	Step    string    `json:"step,omitempty"`
	Done    int64     `json:"done,omitempty"`
	Total   int64     `json:"total,omitempty"`
	Status  string    `json:"status,omitempty"` // done or failed, once
	Error   string    `json:"error,omitempty"`
	Seconds float64   `json:"seconds"` // since the work began
}

func (v *jsonView) write(e event) {
	e.Time = time.Now().UTC()
	e.Seconds = float64(time.Since(v.began).Milliseconds()) / 1000
	enc := json.NewEncoder(v.out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(e) // a reader that is gone is no reason to stop the work
}

func (v *jsonView) step(name, text string) {
	v.write(event{Name: name, Step: strings.TrimRight(text, "\n")})
}

func (v *jsonView) bar(name, what string, done, total int64) {
	if v.told == nil {
		v.told = map[string]time.Time{}
	}
	if !throttled(v.told, name+"\x00"+what, done, total) {
		v.write(event{Name: name, Step: what, Done: done, Total: total})
	}
}

func (v *jsonView) done(name string, err error) {
	e := event{Name: name, Status: "done"}
	if err != nil {
		e.Status, e.Error = "failed", err.Error()
	}
	v.write(e)
}
