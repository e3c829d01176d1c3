package api

import "testing"

func TestListShowsAnImageOnce(t *testing.T) {
	f := newFleet(t, 3)
	var rows []struct {
		ID       string `json:"Id"`
		RepoTags []string
	}
	f.must(200, "GET", "/v1.41/images/json", nil).decode(t, &rows)
	if len(rows) != 1 || len(rows[0].RepoTags) != 1 || rows[0].RepoTags[0] != "busybox:latest" {
		t.Errorf("rows = %v, want busybox:latest alone", rows)
	}
}
