package enginecall

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"berth/internal/fleet"
)

// engine answers as one does.
type engine func(r *http.Request) (*http.Response, error)

func (e engine) Do(_ context.Context, _ string, r *http.Request) (*http.Response, error) { return e(r) }

func answer(status int, body string) (*http.Response, error) {
	return &http.Response{Status: http.StatusText(status), StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func TestExchange(t *testing.T) {
	away := errors.New("node n1: connection refused")
	for name, tt := range map[string]struct {
		status  int
		body    string
		away    error
		want    string // the error
		refused bool
	}{
		"done":             {status: 201, body: `{"ID":"x"}`},
		"done already":     {status: 304, body: `{}`},
		"refused":          {status: 409, body: `{"message":"is running"}`, want: "node n1: POST /things: is running", refused: true},
		"refused by other": {status: 502, body: "<html>", want: "node n1: POST /things: Bad Gateway", refused: true},
		"nonsense":         {status: 200, body: "{", want: "node n1: POST /things: unexpected end of JSON input"},
		"away":             {away: away, want: away.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			var sent, url string
			c := Caller{API: "1.41", Engines: engine(func(r *http.Request) (*http.Response, error) {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				sent, url = r.Header.Get("Content-Type")+" "+string(b), r.URL.String()
				if tt.away != nil {
					return nil, tt.away
				}
				return answer(tt.status, tt.body)
			})}
			var got struct{ ID string }
			err := c.Exchange(t.Context(), time.Second, &fleet.Node{Name: "n1", API: "1.30"}, http.MethodPost, "/things", map[string][]string{"all": {"1"}}, map[string]string{"token": "secret"}, &got)
			if sent != `application/json {"token":"secret"}` || url != "http://docker/v1.30/things?all=1" {
				t.Errorf("sent %s to %s", sent, url)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != tt.want || Refused(err) != tt.refused || IsStatus(err, tt.status) != tt.refused {
				t.Errorf("error %q, want %q", text, tt.want)
			}
			if tt.status == 201 && got.ID != "x" {
				t.Errorf("decoded %+v", got)
			}
		})
	}
}

func TestACallHasALimit(t *testing.T) {
	c := Caller{API: "1.41", Engines: engine(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	})}
	_, err := c.Ask(t.Context(), time.Millisecond, &fleet.Node{Name: "n1"}, http.MethodGet, "/x", nil, nil)
	if err == nil || err.Error() != "no answer within 1ms" {
		t.Errorf("error %v", err)
	}
}
