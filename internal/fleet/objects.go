package fleet

import (
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// NetworkRef is a network and the node it is on.
type NetworkRef struct {
	Node    *Node
	Network *Network
}

// VolumeRef is a volume and the node it is on.
type VolumeRef struct {
	Node   *Node
	Volume *Volume
}

// ImageRef is an image and the node it is on.
type ImageRef struct {
	Node  *Node
	Image *Image
}

// Networks finds all copies of a network: by ID, then name, then node/name, then unique ID prefix. A predefined network or
// one of global scope has a copy on each node; several different networks are an AmbiguousError.
func (s *Snapshot) Networks(ref string) ([]NetworkRef, error) {
	tests := []func(*Network) bool{
		func(w *Network) bool { return w.ID == ref },
		func(w *Network) bool { return w.Name == ref },
	}
	for _, test := range tests {
		if found := s.networks(test); len(found) > 0 {
			return oneNetwork(ref, found)
		}
	}
	if node, rest, ok := strings.Cut(ref, "/"); ok {
		if n, ok := s.NodeByName(node); ok {
			for _, w := range n.Networks {
				if w.Name == rest || w.ID == rest {
					return []NetworkRef{{n, w}}, nil
				}
			}
		}
	}
	if ref != "" {
		if found := s.networks(func(w *Network) bool { return strings.HasPrefix(w.ID, ref) }); len(found) > 0 {
			return oneNetwork(ref, found)
		}
	}
	return nil, &NotFoundError{KindNetwork, ref}
}

func (s *Snapshot) networks(match func(*Network) bool) []NetworkRef {
	var found []NetworkRef
	for n := range s.byName.all() {
		for _, w := range n.Networks {
			if match(w) {
				found = append(found, NetworkRef{n, w})
			}
		}
	}
	return found
}

func oneNetwork(ref string, found []NetworkRef) ([]NetworkRef, error) {
	first := found[0].Network
	e := &AmbiguousError{Kind: KindNetwork, Ref: ref}
	for _, f := range found {
		same := f.Network.ID == first.ID || first.Predefined() && f.Network.Name == first.Name
		if !same || e.Count == 0 {
			e.Count++
		}
		e.Names = append(e.Names, f.Node.Name+"/"+f.Network.Name)
	}
	if e.Count > 1 {
		return nil, e
	}
	return found, nil
}

// Volumes finds all copies of a volume by name or node/name. Copies of a driver with node-local data are different volumes;
// whether that is a fault is for the caller to say.
func (s *Snapshot) Volumes(ref string) ([]VolumeRef, error) {
	var found []VolumeRef
	for n := range s.byName.all() {
		for _, v := range n.Volumes {
			if v.Name == ref {
				found = append(found, VolumeRef{n, v})
			}
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	if node, rest, ok := strings.Cut(ref, "/"); ok {
		if n, ok := s.NodeByName(node); ok {
			for _, v := range n.Volumes {
				if v.Name == rest {
					return []VolumeRef{{n, v}}, nil
				}
			}
		}
	}
	return nil, &NotFoundError{KindVolume, ref}
}

// Images finds an image on every node that has it: by ID, tag, digest, or ID prefix. The references are compared in their
// full form, so that busybox, busybox:latest and docker.io/library/busybox are the same.
func (s *Snapshot) Images(ref string) ([]ImageRef, error) {
	match := MatchImage(ref)
	var found []ImageRef
	for n := range s.byName.all() {
		for _, i := range n.Images {
			if match(i) {
				found = append(found, ImageRef{n, i})
			}
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	return s.imagesByPrefix(ref)
}

func (s *Snapshot) imagesByPrefix(ref string) ([]ImageRef, error) {
	prefix := strings.TrimPrefix(ref, "sha256:")
	if prefix == "" || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, &NotFoundError{KindImage, ref}
	}
	var found []ImageRef
	ids := map[string]bool{}
	for n := range s.byName.all() {
		for _, i := range n.Images {
			if strings.HasPrefix(strings.TrimPrefix(i.ID, "sha256:"), prefix) {
				found = append(found, ImageRef{n, i})
				ids[i.ID] = true
			}
		}
	}
	switch {
	case len(found) == 0:
		return nil, &NotFoundError{KindImage, ref}
	case len(ids) > 1:
		return nil, &AmbiguousError{Kind: KindImage, Ref: ref, Count: len(ids)}
	}
	return found, nil
}

// MatchImage returns the test whether an image is meant by a full ID, a tag or a digest.
func MatchImage(ref string) func(*Image) bool {
	id := ref
	if len(ref) == 64 {
		id = "sha256:" + ref
	}
	tag, digest := FamiliarRef(ref)
	return func(i *Image) bool {
		return i.ID == id || tag != "" && slices.Contains(i.RepoTags, tag) || digest != "" && slices.Contains(i.RepoDigests, digest)
	}
}

// FamiliarRef brings an image reference into the form of RepoTags ("busybox:latest") or RepoDigests ("busybox@sha256:…").
// A reference that does not parse gives neither.
func FamiliarRef(ref string) (tag, digest string) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", ""
	}
	name := reference.FamiliarName(named)
	if d, ok := named.(reference.Digested); ok {
		return "", name + "@" + d.Digest().String()
	}
	if t, ok := reference.TagNameOnly(named).(reference.Tagged); ok {
		return name + ":" + t.Tag(), ""
	}
	return "", ""
}

// FindImage returns the node's image that ref means.
func (n *Node) FindImage(ref string) (*Image, bool) {
	match := MatchImage(ref)
	for _, i := range n.Images {
		if match(i) {
			return i, true
		}
	}
	return nil, false
}
