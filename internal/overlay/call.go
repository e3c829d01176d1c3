package overlay

import (
	"time"

	"berth/internal/enginecall"
)

const (
	callLimit = 15 * time.Second // one call that an engine answers at once
	joinLimit = 45 * time.Second // engines themselves give up after 20 seconds
)

// caller makes calls to engines.
type caller struct{ enginecall.Caller }

func newCaller(engines enginecall.Engines, api string) caller {
	return caller{enginecall.Caller{Engines: engines, API: api}}
}
