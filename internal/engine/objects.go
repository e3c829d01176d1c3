package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// list takes in the whole list of images, networks or volumes.
func (e *Engine) list(ctx context.Context, kind fleet.Kind) error {
	t := e.ticket()
	ctx, cancel, err := e.call(ctx, e.o.Timing.List)
	if err != nil {
		return err
	}
	defer cancel()
	switch kind {
	case fleet.KindImage:
		return e.listImages(ctx, t)
	case fleet.KindNetwork:
		return e.listNetworks(ctx, t)
	case fleet.KindVolume:
		return e.listVolumes(ctx, t)
	}
	return fmt.Errorf("no list of %ss", kind)
}

// newest tells whether the answer to the call with ticket t is the newest list of its kind. The caller holds mu.
func (e *Engine) newest(kind fleet.Kind, t uint64) bool {
	if e.lists[kind] > t {
		return false
	}
	e.lists[kind] = t
	return true
}

func (e *Engine) listImages(ctx context.Context, t uint64) error {
	type row struct {
		ID                    string `json:"Id"`
		ParentID              string `json:"ParentId"`
		RepoTags, RepoDigests []string
		Labels                map[string]string
		Created, Size         int64
	}
	images, err := fetchList(ctx, e, "/images/json", "", func(r row, raw json.RawMessage) *fleet.Image {
		return &fleet.Image{ID: r.ID, ParentID: r.ParentID, RepoTags: named(r.RepoTags, "<none>:<none>"), RepoDigests: named(r.RepoDigests, "<none>@<none>"),
			Labels: r.Labels, Created: r.Created, Size: r.Size, Row: raw}
	})
	if err != nil {
		return err
	}
	slices.SortFunc(images, func(a, b *fleet.Image) int { return cmp.Compare(a.ID, b.ID) })
	e.change(func(n *fleet.Node) {
		// What the fleet knows of images hangs on this very slice, so one that tells nothing new does not replace it.
		if e.newest(fleet.KindImage, t) && !slices.EqualFunc(n.Images, images, func(a, b *fleet.Image) bool { return bytes.Equal(a.Row, b.Row) }) {
			n.Images = images
		}
	})
	return nil
}

// named drops the placeholder that engines before 24 list for images without names.
func named(refs []string, none string) []string {
	return slices.DeleteFunc(refs, func(r string) bool { return r == none })
}

func (e *Engine) listNetworks(ctx context.Context, t uint64) error {
	type row struct {
		ID                  string `json:"Id"`
		Name, Driver, Scope string
		Labels              map[string]string
		Created             time.Time
	}
	networks, err := fetchList(ctx, e, "/networks", "", func(r row, raw json.RawMessage) *fleet.Network {
		return &fleet.Network{ID: r.ID, Name: r.Name, Driver: r.Driver, Scope: r.Scope, Labels: r.Labels, Created: r.Created, Row: raw}
	})
	if err != nil {
		return err
	}
	slices.SortFunc(networks, func(a, b *fleet.Network) int { return cmp.Compare(a.ID, b.ID) })
	e.change(func(n *fleet.Node) {
		if e.newest(fleet.KindNetwork, t) {
			n.Networks = networks
		}
	})
	return nil
}

func (e *Engine) listVolumes(ctx context.Context, t uint64) error {
	type row struct {
		Name, Driver, Scope, CreatedAt string
		Labels                         map[string]string
	}
	volumes, err := fetchList(ctx, e, "/volumes", "Volumes", func(r row, raw json.RawMessage) *fleet.Volume {
		return &fleet.Volume{Name: r.Name, Driver: r.Driver, Scope: r.Scope, Labels: r.Labels, CreatedAt: r.CreatedAt, Row: raw}
	})
	if err != nil {
		return err
	}
	slices.SortFunc(volumes, func(a, b *fleet.Volume) int { return cmp.Compare(a.Name, b.Name) })
	e.change(func(n *fleet.Node) {
		if e.newest(fleet.KindVolume, t) {
			n.Volumes = volumes
		}
	})
	return nil
}

// fetchList asks for a list and makes an object of each row; the list is the body itself or its field.
func fetchList[R, T any](ctx context.Context, e *Engine, path, field string, build func(R, json.RawMessage) T) ([]T, error) {
	body, err := e.get(ctx, e.path(path), "")
	if err != nil {
		return nil, err
	}
	if field != "" {
		o, err := rawjson.ParseTrusted(body)
		if err != nil {
			return nil, fmt.Errorf("GET %s: %w", path, err)
		}
		if !o.Has(field) {
			return nil, nil
		}
		body = o.Get(field)
	}
	raws, err := rawjson.Array(body)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", path, err)
	}
	list := make([]T, 0, len(raws))
	for _, raw := range raws {
		raw = bytes.Clone(raw) // it is kept for long, and the body is larger
		var r R
		if err := json.Unmarshal(raw, &r); err != nil {
			return nil, fmt.Errorf("GET %s: %w", path, err)
		}
		list = append(list, build(r, raw))
	}
	return list, nil
}
