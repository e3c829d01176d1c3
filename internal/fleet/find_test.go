package fleet

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const (
	idA = "aa11111111111111111111111111111111111111111111111111111111111111"
	idB = "aa22222222222222222222222222222222222222222222222222222222222222"
	idC = "cc33333333333333333333333333333333333333333333333333333333333333"
)

// small is two nodes that both have a container named twin.
func small() *Snapshot {
	return new(Snapshot).
		Replace(&Node{ID: "E1|10.0.0.1:2375", EngineID: "E1", Name: "n1", Containers: []*Container{
			{ID: idA, Name: "web"}, {ID: idB, Name: "twin", Labels: LabelsOf(map[string]string{LabelSwarmID: "5afe00"})},
			{ID: "fa" + idC[2:], Name: "rest"}, {ID: "fb" + idC[2:], Name: "more"}, {ID: "fc" + idC[2:], Name: "f"},
		}}).
		Replace(&Node{ID: "E2|10.0.0.2:2375", EngineID: "E2", Name: "n2", Containers: []*Container{
			{ID: "bb" + strings.Repeat("0", 62), Name: "twin"}, {ID: idC, Name: "cc33"}, {ID: "cc" + strings.Repeat("4", 62), Name: idA[:4]},
		}})
}

func TestFindContainer(t *testing.T) {
	s := small()
	for ref, want := range map[string]string{
		idA: "n1/web", idA[:3]: "n1/web", "web": "n1/web", "/web": "n1/web", "n1/web": "n1/web", "/n1/web": "n1/web", "E1/web": "n1/web",
		"n1/" + idA: "n1/web", "n1/" + idA[:3]: "n1/web",
		"cc33":                  "n2/cc33", // a name before the beginning of an ID
		idA[:4]:                 "n2/aa11", // also of another's
		"cc333":                 "n2/cc33",
		"n1/twin":               "n1/twin",
		"n2/twin":               "n2/twin",
		"5afe":                  "n1/twin", // Swarm's ID
		"twin":                  "container twin is ambiguous: n1/twin, n2/twin",
		"aa":                    "multiple IDs found with provided prefix: aa",
		"cc":                    "multiple IDs found with provided prefix: cc",
		"n1/aa":                 "No such container: n1/aa", // ambiguous there, so nothing certain
		"n2/web":                "No such container: n2/web",
		"n9/web":                "No such container: n9/web",
		"n1/":                   "No such container: n1/",
		"nobody":                "No such container: nobody",
		"":                      "No such container: ",
		"/":                     "No such container: /",
		"WEB":                   "No such container: WEB",
		idA + "1":               "No such container: " + idA + "1",
		"n1/n1/web":             "No such container: n1/n1/web",
		"E1|10.0.0.1:2375/twin": "n1/twin",
	} {
		c, err := s.Container(ref)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = c.Node.Name + "/" + c.Container.Name
		}
		if got != want {
			t.Errorf("Container(%q) = %s, want %s", ref, got, want)
		}
	}
}

func TestErrorsTellTheirKind(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
		is   func(error) bool
	}{
		{&NotFoundError{KindContainer, "x"}, "No such container: x", errdefs.IsNotFound},
		{&NotFoundError{KindImage, "x:1"}, "No such image: x:1", errdefs.IsNotFound},
		{&NotFoundError{KindNetwork, "x"}, "network x not found", errdefs.IsNotFound},
		{&NotFoundError{KindVolume, "x"}, "get x: no such volume", errdefs.IsNotFound},
		{&AmbiguousError{Kind: KindNetwork, Ref: "x", Count: 2}, "network x is ambiguous (2 matches found on name)", errdefs.IsInvalidArgument},
		{&AmbiguousError{Kind: KindVolume, Ref: "x", Count: 2, Names: []string{"a/x", "b/x"}}, "volume x is ambiguous: a/x, b/x", errdefs.IsInvalidArgument},
	} {
		if tt.err.Error() != tt.want || !tt.is(tt.err) {
			t.Errorf("%#v says %q (kind told: %v), want %q", tt.err, tt.err, tt.is(tt.err), tt.want)
		}
	}
}

func TestFindNetworks(t *testing.T) {
	net := func(id, name, scope string) *Network { return &Network{ID: id, Name: name, Scope: scope} }
	s := new(Snapshot).
		Replace(&Node{ID: "1", Name: "n1", Networks: []*Network{net("a1", "bridge", "local"), net("a2", "own", "local"), net("a3", "twin", "local"), net("ov", "over", "swarm")}}).
		Replace(&Node{ID: "2", Name: "n2", Networks: []*Network{net("b1", "bridge", "local"), net("b3", "twin", "local"), net("ov", "over", "swarm"), net("a2own", "a2", "local")}})
	for ref, want := range map[string]string{
		"bridge": "n1/bridge n2/bridge", "own": "n1/own", "over": "n1/over n2/over", "ov": "n1/over n2/over", "n2/twin": "n2/twin", "b": "network b is ambiguous (2 matches found on name): n2/bridge, n2/twin",
		"a2":      "n1/own", // a full ID before a name
		"a2o":     "n2/a2",
		"b1":      "n2/bridge",
		"n2/b1":   "n2/bridge",
		"twin":    "network twin is ambiguous (2 matches found on name): n1/twin, n2/twin",
		"n3/twin": "network n3/twin not found", "none": "network none not found", "": "network  not found",
	} {
		refs, err := s.Networks(ref)
		var got []string
		for _, r := range refs {
			got = append(got, r.Node.Name+"/"+r.Network.Name)
		}
		if err != nil {
			got = append(got, err.Error())
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("Networks(%q) = %s, want %s", ref, g, want)
		}
	}
}

func TestFindVolumes(t *testing.T) {
	s := new(Snapshot).
		Replace(&Node{ID: "1", Name: "n1", Volumes: []*Volume{{Name: "data"}, {Name: "twin"}}}).
		Replace(&Node{ID: "2", Name: "n2", Volumes: []*Volume{{Name: "twin"}}})
	for ref, want := range map[string]string{
		"data": "n1", "n1/data": "n1", "twin": "n1 n2", "n2/twin": "n2", "2/twin": "n2",
		"n2/data": "get n2/data: no such volume", "dat": "get dat: no such volume", "": "get : no such volume",
	} {
		refs, err := s.Volumes(ref)
		var got []string
		for _, r := range refs {
			got = append(got, r.Node.Name)
		}
		if err != nil {
			got = append(got, err.Error())
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("Volumes(%q) = %s, want %s", ref, g, want)
		}
	}
}

func TestFindImages(t *testing.T) {
	digest := "sha256:" + strings.Repeat("d", 64)
	box := &Image{ID: "sha256:" + strings.Repeat("ab", 32), RepoTags: []string{"busybox:latest", "localhost:5000/x/box:1"}, RepoDigests: []string{"busybox@" + digest}}
	old := &Image{ID: "sha256:" + strings.Repeat("ac", 32), RepoTags: []string{"busybox:1"}}
	s := new(Snapshot).
		Replace(&Node{ID: "1", Name: "n1", Images: []*Image{box, old}}).
		Replace(&Node{ID: "2", Name: "n2", Images: []*Image{box}})
	for ref, want := range map[string]string{
		"busybox": "n1 n2", "busybox:latest": "n1 n2", "docker.io/library/busybox": "n1 n2", "index.docker.io/library/busybox:latest": "n1 n2",
		"library/busybox": "n1 n2", "busybox:1": "n1", "localhost:5000/x/box:1": "n1 n2", "busybox@" + digest: "n1 n2", "busybox:9@" + digest: "n1 n2",
		box.ID: "n1 n2", strings.TrimPrefix(box.ID, "sha256:"): "n1 n2", "abab": "n1 n2", "sha256:abab": "n1 n2", "acac": "n1",
		"a":                    "multiple IDs found with provided prefix: a",
		"box:1":                "No such image: box:1",
		"localhost:5000/x/box": "No such image: localhost:5000/x/box",
		"busybox:2":            "No such image: busybox:2",
		"BUSYBOX":              "No such image: BUSYBOX",
		"":                     "No such image: ",
		"sha256:":              "No such image: sha256:",
		"beef":                 "No such image: beef",
		"other@" + digest:      "No such image: other@" + digest,
	} {
		refs, err := s.Images(ref)
		var got []string
		for _, r := range refs {
			got = append(got, r.Node.Name)
		}
		if err != nil {
			got = append(got, err.Error())
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("Images(%q) = %s, want %s", ref, g, want)
		}
	}
	n, _ := s.Node("2")
	if i, ok := n.FindImage("busybox"); !ok || i != box {
		t.Errorf("busybox on n2 = %v, want %s", i, box.ID)
	}
	if i, ok := n.FindImage("busybox:1"); ok {
		t.Errorf("busybox:1 on n2 = %v, want none", i)
	}
	var none *NotFoundError
	if _, err := s.Images("nosuch"); !errors.As(err, &none) || none.Kind != KindImage {
		t.Errorf("an unknown image: %v", err)
	}
}
