package api

import (
	"net/http"
	"testing"
	"time"

	"berth/internal/dockertest"
)

func TestWhatWasKilledIsSeenDead(t *testing.T) {
	f := newFleet(t, 1, func(o *dockertest.Options) { o.SlowDeath = 5 * time.Millisecond })
	f.must(http.StatusCreated, "POST", "/containers/create?name=web", map[string]any{"Image": "busybox", "Cmd": []string{"sleep", "1000"}})
	for _, query := range []string{"", "?signal=KILL", "?signal=9"} {
		f.must(http.StatusNoContent, "POST", "/containers/web/start", nil)
		f.must(http.StatusNoContent, "POST", "/containers/web/kill"+query, nil)
		var list []struct{ State string }
		f.must(http.StatusOK, "GET", "/containers/json?all=1", nil).decode(t, &list)
		if len(list) != 1 || list[0].State != "exited" {
			t.Errorf("after kill%s the list is %+v, want one that exited", query, list)
		}
	}
}
