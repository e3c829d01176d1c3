package fleet

// tally is what the containers of a node add up to, and how many of them have to be looked at for what most fleets have none of. It
// follows from that of an earlier list and from what differs: a change of one container is not to cost a look at all.
type tally struct {
	Sum
	relays, relaysUp int32 // berth's own, which have no part in where others go, and those of them that run
	binding          int32 // those that take ports of the host
	watched          int32 // those that matter when a node is lost
	taking           int32 // those that take another's place
}

// after is the tally of a list, where t is that of the list before.
func (t tally) after(was, is []*Container) tally {
	differ(was, is, func(gone, came *Container) {
		if gone != nil {
			t.add(gone, -1)
		}
		if came != nil {
			t.add(came, 1)
		}
	})
	return t
}

// differ calls each for what differs between two lists of a node, in the order of their IDs: a container that is gone, one that came, or both for
// one that changed. Those that both have, as a rule nearly all, are not looked at.
func differ(was, is []*Container, each func(gone, came *Container)) {
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(was) > 0 && len(is) > 0 && was[0] == is[0]:
			was, is = was[1:], is[1:]
		case len(is) == 0 || len(was) > 0 && was[0].ID < is[0].ID:
			each(was[0], nil)
			was = was[1:]
		case len(was) == 0 || is[0].ID < was[0].ID:
			each(nil, is[0])
			is = is[1:]
		default:
			each(was[0], is[0])
			was, is = was[1:], is[1:]
		}
	}
}

// add counts a container once more, or with -1 once less.
func (t *tally) add(c *Container, by int) {
	t.Memory += int64(by) * c.Memory
	t.NanoCPUs += int64(by) * c.NanoCPUs
	switch {
	case c.State == "paused":
		t.Paused += by
	case c.Running():
		t.Running += by
	default:
		t.Stopped += by
	}
	one := int32(by) //nolint:gosec // 1 or -1
	if c.Relay {
		t.relays += one
		if c.Running() {
			t.relaysUp += one
		}
	}
	if len(c.Wanted) > 0 || len(c.Published) > 0 || c.NetworkMode == "host" {
		t.binding += one
	}
	if c.Reschedule != RescheduleOff || c.Rescued != nil {
		t.watched += one
	}
	if c.takes() {
		t.taking += one
	}
}

// takes tells whether the container takes another's place, or has.
func (c *Container) takes() bool { return c.Moved != nil || c.Rescued != nil }

// Takers tells whether any container of the node takes another's place, or has.
func (f *Facts) Takers() bool { return f.tally.taking > 0 }
