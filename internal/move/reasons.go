package move

import (
	"slices"
	"strings"

	"berth/internal/fleet"
)

// reasons lists what keeps a container on its node, whatever the other nodes are like.
func reasons(n *fleet.Node, c *container, volumes []volume, withVolumes bool) []string {
	var why []string
	add := func(is bool, text string) {
		if is && !slices.Contains(why, text) {
			why = append(why, text)
		}
	}
	h := c.HostConfig
	was, aside := fleet.Stale(c.Name, c.ID)
	add(aside, "it was set aside when another took the place of "+was)
	add(c.State.Paused, "it is paused, and what it has in memory would be lost")
	add(h.AutoRemove, "it is removed when it stops (--rm)")
	for _, d := range h.Devices {
		add(true, "it uses device "+d.PathOnHost+" of its node")
	}
	add(len(h.DeviceRequests) > 0, "it uses devices of its node")
	for _, m := range c.Mounts {
		add(m.Type == "bind" || m.Type == "npipe", "it mounts "+m.Source+" of its node")
	}
	for _, v := range volumes {
		why = append(why, v.reasons(n, c.ID, withVolumes)...)
	}
	for _, l := range h.Links {
		other, _, _ := strings.Cut(l, ":")
		add(true, "it is linked to "+strings.TrimPrefix(other, "/"))
	}
	for _, v := range h.VolumesFrom {
		other, _, _ := strings.Cut(v, ":")
		add(true, "it uses the volumes of "+nameOf(n, other))
	}
	for _, share := range []struct{ what, mode string }{{"network", h.NetworkMode}, {"IPC", h.IpcMode}, {"PID", h.PidMode}} {
		if other, ok := strings.CutPrefix(share.mode, "container:"); ok {
			add(true, "it shares the "+share.what+" namespace of "+nameOf(n, other))
		}
	}
	for name, at := range c.NetworkSettings.Networks {
		add(isLocal(n, name, at.NetworkID), "it is in network "+name+" of its node")
	}
	for _, other := range c.linkedBy {
		add(true, other+" is linked to it")
	}
	for _, x := range n.Containers {
		other, ok := strings.CutPrefix(x.NetworkMode, "container:")
		add(ok && x.ID != c.ID && (other == c.Name || len(other) >= 12 && strings.HasPrefix(c.ID, other)), x.Name+" shares its network namespace")
	}
	slices.Sort(why)
	return why
}

// nameOf is the name of a container of the node, where a reference is an ID.
func nameOf(n *fleet.Node, ref string) string {
	if x, ok := n.Find(ref); ok {
		return x.Name
	}
	return ref
}

// isLocal tells whether a network is one that only this node has.
func isLocal(n *fleet.Node, name, id string) bool {
	for _, w := range n.Networks {
		if w.ID == id || id == "" && w.Name == name {
			return w.Scope == "local" && !w.Predefined()
		}
	}
	return false
}
