package api

import (
	"context"
	"sync"
	"time"

	"berth/internal/fleet"
)

// builders remembers which node builds for whom. One build is several requests, some of which name the build only inside of
// an encrypted or binary stream, so all that a client does goes to one node; its cache is there too.
type builders struct {
	mu    sync.Mutex
	byWho map[string]*builder
	// dirty are the nodes on which images may have appeared that nobody told us of, with their open streams: BuildKit's
	// results are known to its client and its engine alone.
	dirty map[string]int
}

type builder struct {
	nodeID string
	used   time.Time
	open   int // streams
}

// stickyFor is how long a client keeps its builder after the last use.
const stickyFor = 30 * time.Minute

func newBuilders() *builders {
	return &builders{byWho: map[string]*builder{}, dirty: map[string]int{}}
}

// settleBuilds brings the picture of nodes up to date that BuildKit streams were open to, so that an image that was just
// built is found.
func (s *Server) settleBuilds(ctx context.Context) {
	var ids []string
	b := s.builders
	b.mu.Lock()
	for id, open := range b.dirty {
		ids = append(ids, id)
		if open == 0 {
			delete(b.dirty, id)
		}
	}
	b.mu.Unlock()
	for _, id := range ids {
		n, ok := s.fleet.Snapshot().Node(id)
		if !ok || n.State != fleet.Healthy {
			continue
		}
		s.refresh(ctx, n, fleet.KindImage, "")
		s.noteTags(n)
	}
}

// noteTags takes the tags that are new since an older picture of a node for written now.
func (s *Server) noteTags(old *fleet.Node) {
	now, ok := s.fleet.Snapshot().Node(old.ID)
	if !ok {
		return
	}
	before := map[string]string{}
	for _, i := range old.Images {
		for _, t := range i.RepoTags {
			before[t] = i.ID
		}
	}
	for _, i := range now.Images {
		for _, t := range i.RepoTags {
			if before[t] != i.ID {
				s.imageWritten(now, t)
			}
		}
	}
}
