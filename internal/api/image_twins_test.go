package api

import (
	"bytes"
	"testing"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

// twoStores is a fleet whose n2 keeps images in containerd's store, where the same image has another ID.
func twoStores(t *testing.T, images map[string][]string) *testFleet {
	t.Helper()
	f := newFleet(t, 2, only(images), func(o *dockertest.Options) { o.ContainerdStore = o.Name == "n2" })
	if one, two := f.daemons[0].Images()["busybox:latest"], f.daemons[1].Images()["busybox:latest"]; one == two {
		t.Fatalf("both stores call busybox %s", one)
	}
	return f
}

// idOf is the ID that clients are told.
func (f *testFleet) idOf(ref string) string {
	f.t.Helper()
	var i struct {
		ID string `json:"Id"`
	}
	f.must(200, "GET", "/images/"+ref+"/json", nil).decode(f.t, &i)
	return i.ID
}

func TestImageInTwoKindsOfStoreIsOne(t *testing.T) {
	f := twoStores(t, map[string][]string{"n1": {"app:1"}, "n2": {"app:1", "other:1"}})
	rows := f.images("")
	if len(rows) != 3 || tagsIn(rows) != "app:1 busybox:latest other:1" {
		t.Errorf("images = %+v, want three", rows)
	}
	id := f.idOf("app:1")
	for _, row := range rows {
		if row.ID != f.idOf(row.RepoTags[0]) {
			t.Errorf("%v is listed as %s and inspected as %s", row.RepoTags, row.ID, f.idOf(row.RepoTags[0]))
		}
	}
	// A use on either node copies nothing and changes nothing.
	for _, n := range []string{"n1", "n2"} {
		if a := f.create(n, "app:1"); a.status != 201 {
			t.Fatalf("create on %s = %d %s", n, a.status, a.body)
		}
	}
	for i, d := range f.daemons {
		if loads := asked(d, "POST", "/v1.41/images/load"); loads > 0 {
			t.Errorf("%d copies to n%d of an image that it has", loads, i+1)
		}
	}
	if got := f.idOf("app:1"); got != id {
		t.Errorf("ID after use = %s, before %s", got, id)
	}
}

func TestCopyInAnotherStoreDoesNotChangeTheID(t *testing.T) {
	for from, to := range map[string]string{"n1": "n2", "n2": "n1"} {
		f := twoStores(t, map[string][]string{from: {"app:1"}})
		id := f.idOf("app:1")
		if a := f.create(to, "app:1"); a.status != 201 {
			t.Fatalf("create on %s = %d %s", to, a.status, a.body)
		}
		if got := f.idOf("app:1"); got != id {
			t.Errorf("ID after the copy from %s to %s = %s, before %s", from, to, got, id)
		}
		if rows := f.images(`{"reference":["app"]}`); len(rows) != 1 || rows[0].ID != id {
			t.Errorf("images after the copy = %+v, want %s alone", rows, id)
		}
		f.must(200, "DELETE", "/images/"+id+"?force=1", nil)
		for _, d := range f.daemons {
			if left := d.Images()["app:1"]; left != "" {
				t.Errorf("%s still has %s after its removal by ID", d.Name(), left)
			}
		}
	}
}

func TestLoadOfWhatClientsKnowKeepsItsID(t *testing.T) {
	for _, node := range []string{"n1", "n2"} {
		f := twoStores(t, map[string][]string{node: {"app:1"}})
		id := f.idOf("app:1")
		archive := f.must(200, "GET", "/images/app:1/get", nil).body
		f.must(200, "DELETE", "/images/app:1", nil)
		if a := f.send("POST", "/v1.41/images/load", bytes.NewReader(archive)); a.status != 200 {
			t.Fatalf("load = %d %s", a.status, a.body)
		}
		if got := f.idOf("app:1"); got != id {
			t.Errorf("ID after save on %s and load everywhere = %s, before %s", node, got, id)
		}
	}
}

func TestImagesOfOneAgeAreNotOne(t *testing.T) {
	f := twoStores(t, map[string][]string{"n1": {"app:1"}, "n2": {"app:2"}}) // differ in a label and a layer
	if a, b := f.idOf("app:1"), f.idOf("app:2"); a == b {
		t.Errorf("app:1 and app:2 are both %s", a)
	}
	if rows := f.images(""); len(rows) != 3 {
		t.Errorf("images = %+v, want three", rows)
	}
}

func TestUniformFleetsAskForNothing(t *testing.T) {
	f := newFleet(t, 2, only(map[string][]string{"n1": {"app:1"}, "n2": {"app:2"}}))
	f.images("")
	for _, d := range f.daemons {
		if n := asked(d, "GET", "/v1.41/images/sha256"); n > 0 {
			t.Errorf("%s was asked %d times what its images are made of", d.Name(), n)
		}
	}
}

func TestContentsAreAskedForOnce(t *testing.T) {
	f := twoStores(t, map[string][]string{"n1": {"app:1"}, "n2": {"app:1"}})
	for range 3 {
		f.images("")
		f.daemons[0].AddImage("app:1")
		n1, _ := f.cluster.Snapshot().NodeByName("n1")
		if err := f.cluster.Refresh(t.Context(), n1.ID, fleet.KindImage, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range f.daemons {
		if n := asked(d, "GET", "/v1.41/images/sha256"); n > 2 {
			t.Errorf("%s was asked %d times what its two images are made of", d.Name(), n)
		}
	}
}
