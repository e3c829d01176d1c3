package schedule

import (
	"slices"
	"strings"
	"testing"

	"berth/internal/fleet"
)

// filterCase says which nodes fit, in an order that does not matter here, or why none does.
type filterCase struct {
	nodes   []*fleet.Node
	pending []Pending
	req     Request
	rules   []string
	filters []string
	want    string
}

func runFilterCases(t *testing.T, cases map[string]filterCase) {
	t.Helper()
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			tt.req.Name, tt.req.Rules = "web", rules(t, tt.rules...)
			p := DefaultPolicy()
			if tt.filters != nil {
				p.Filters = tt.filters
			}
			got := outcome(View{snapshot(tt.nodes...), tt.pending}, &tt.req, p)
			if sorted(got) != sorted(tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

const digest = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func zeros(n int) string { return strings.Repeat("0", n) }

// sorted puts the words of a list of nodes in order; a refusal's order is part of it.
func sorted(s string) string {
	if strings.HasPrefix(s, "no node ") {
		return s
	}
	return strings.Join(slices.Sorted(slices.Values(strings.Fields(s))), " ")
}

func pending(n *fleet.Node, r Request) Pending { return Pending{NodeID: n.ID, Request: &r} }

func TestHealth(t *testing.T) {
	runFilterCases(t, map[string]filterCase{
		"only nodes that answer":      {nodes: []*fleet.Node{node("n1"), node("n2", "unhealthy"), node("n3", "pending"), node("n4", "failing")}, want: "n1"},
		"one that fails now and then": {nodes: []*fleet.Node{node("n1", "ailing")}, want: "n1"},
		"none": {nodes: []*fleet.Node{node("n2", "unhealthy"), node("n3", "pending"), node("n4", "failing"), node("n5", "failing")},
			want: "no node fits web: 2 of 4 fail too often, 1 unhealthy, 1 not reached yet"},
		"a fleet of nothing": {want: "no node fits web: the fleet has no nodes"},
		"without the filter a failing node may be had, an unhealthy one not": {
			nodes: []*fleet.Node{node("n1", "unhealthy"), node("n2", "failing")}, filters: []string{"port"}, want: "n2"},
	})
}

func TestPorts(t *testing.T) {
	free := node("n2")
	runFilterCases(t, map[string]filterCase{
		"taken":            {nodes: []*fleet.Node{node("n1", "+a,80/tcp"), free}, req: Request{Ports: ports("80/tcp")}, want: "n2"},
		"by a stopped one": {nodes: []*fleet.Node{node("n1", "+a,80/tcp,stopped"), free}, req: Request{Ports: ports("80/tcp")}, want: "n2"},
		"another protocol": {nodes: []*fleet.Node{node("n1", "+a,80/tcp")}, req: Request{Ports: ports("80/udp")}, want: "n1"},
		"another port":     {nodes: []*fleet.Node{node("n1", "+a,80/tcp")}, req: Request{Ports: ports("81/tcp")}, want: "n1"},
		"a port 256 away":  {nodes: []*fleet.Node{node("n1", "+a,80/tcp")}, req: Request{Ports: ports("336/tcp")}, want: "n1"},
		"any port":         {nodes: []*fleet.Node{node("n1", "+a,80/tcp")}, req: Request{Ports: ports("0/tcp")}, want: "n1"},
		"another address":  {nodes: []*fleet.Node{node("n1", "+a,127.0.0.1|80/tcp")}, req: Request{Ports: ports("10.0.0.1|80/tcp")}, want: "n1"},
		"every address":    {nodes: []*fleet.Node{node("n1", "+a,127.0.0.1|80/tcp"), free}, req: Request{Ports: ports("0.0.0.0|80/tcp")}, want: "n2"},
		"of every address": {nodes: []*fleet.Node{node("n1", "+a,80/tcp"), free}, req: Request{Ports: ports("127.0.0.1|80/tcp")}, want: "n2"},
		"IPv6 and IPv4":    {nodes: []*fleet.Node{node("n1", "+a,0.0.0.0|80/tcp")}, req: Request{Ports: ports("::|80/tcp")}, want: "n1"},
		"the second":       {nodes: []*fleet.Node{node("n1", "+a,443/tcp"), free}, req: Request{Ports: ports("80/tcp", "443/tcp")}, want: "n2"},
		"of a create in flight": {
			nodes: []*fleet.Node{node("n1"), free}, pending: []Pending{pending(node("n1"), Request{Ports: ports("80/tcp")})},
			req: Request{Ports: ports("80/tcp")}, want: "n2"},
		"any port in flight": {nodes: []*fleet.Node{free}, pending: []Pending{pending(free, Request{Ports: ports("0/tcp")})}, req: Request{Ports: ports("0/tcp")}, want: "n2"},
		"in flight, but on the node's network": {
			nodes: []*fleet.Node{free}, pending: []Pending{pending(free, Request{HostNetwork: true, Ports: ports("80/tcp")})}, req: Request{Ports: ports("80/tcp")}, want: "n2"},
		"on the node's network, in flight on another": {
			nodes: []*fleet.Node{free}, pending: []Pending{pending(free, Request{Exposed: exposed("80/tcp")})}, req: Request{HostNetwork: true, Exposed: exposed("80/tcp")}, want: "n2"},
		"everywhere": {nodes: []*fleet.Node{node("n1", "+a,80/tcp"), node("n2", "+b,127.0.0.1|443/tcp")}, req: Request{Ports: ports("80/tcp", "127.0.0.1|443/tcp")},
			want: "no node fits web: 1 of 2 has port 80/tcp taken, 1 has port 127.0.0.1:443/tcp taken"},
		"filter left out":             {nodes: []*fleet.Node{node("n1", "+a,80/tcp")}, req: Request{Ports: ports("80/tcp")}, filters: []string{"health"}, want: "n1"},
		"host mode":                   {nodes: []*fleet.Node{node("n1", "+a,host,80/tcp"), free}, req: Request{HostNetwork: true, Exposed: exposed("80/tcp")}, want: "n2"},
		"host mode, another protocol": {nodes: []*fleet.Node{node("n1", "+a,host,80/tcp")}, req: Request{HostNetwork: true, Exposed: exposed("80/udp")}, want: "n1"},
		"host mode does not publish":  {nodes: []*fleet.Node{node("n1", "+a,80/tcp")}, req: Request{HostNetwork: true, Ports: ports("80/tcp")}, want: "n1"},
		"host mode in flight": {
			nodes: []*fleet.Node{node("n1")}, pending: []Pending{pending(node("n1"), Request{HostNetwork: true, Exposed: exposed("80/tcp")})},
			req:  Request{HostNetwork: true, Exposed: exposed("80/tcp")},
			want: "no node fits web: 1 of 1 has port 80/tcp taken on its own network"},
	})
}

func TestSlots(t *testing.T) {
	runFilterCases(t, map[string]filterCase{
		"full":          {nodes: []*fleet.Node{node("n1", "containerslots=1", "+a,stopped"), node("n2", "containerslots=2", "+b")}, want: "n2"},
		"no number":     {nodes: []*fleet.Node{node("n1", "containerslots=many", "+a")}, want: "n1"},
		"none at all":   {nodes: []*fleet.Node{node("n1", "containerslots=0")}, want: "no node fits web: 1 of 1 has no container slot left"},
		"in flight":     {nodes: []*fleet.Node{node("n1", "containerslots=1")}, pending: []Pending{pending(node("n1"), Request{})}, want: "no node fits web: 1 of 1 has no container slot left"},
		"not asked for": {nodes: []*fleet.Node{node("n1", "containerslots=0")}, filters: []string{"health", "port"}, want: "n1"},
	})
}

func TestDependency(t *testing.T) {
	fleetOf := func() []*fleet.Node { return []*fleet.Node{node("n1", "+db"), node("n2", "+cache"), node("n3")} }
	id := container("n1", "db").ID
	runFilterCases(t, map[string]filterCase{
		"link":                         {nodes: fleetOf(), req: Request{Links: []string{"db"}}, want: "n1"},
		"link and alias":               {nodes: fleetOf(), req: Request{Links: []string{"db:database"}}, want: "n1"},
		"volumes":                      {nodes: fleetOf(), req: Request{VolumesFrom: []string{"cache:ro"}}, want: "n2"},
		"shared network":               {nodes: fleetOf(), req: Request{Shares: []string{"cache"}}, want: "n2"},
		"by ID":                        {nodes: fleetOf(), req: Request{Links: []string{id}}, want: "n1"},
		"by ID prefix":                 {nodes: fleetOf(), req: Request{Links: []string{id[:63]}}, want: "n1"},
		"by node":                      {nodes: fleetOf(), req: Request{Links: []string{"n1/db"}}, want: "n1"},
		"with a slash":                 {nodes: fleetOf(), req: Request{Links: []string{"/db"}}, want: "n1"},
		"in flight":                    {nodes: fleetOf(), pending: []Pending{pending(node("n3"), Request{Name: "new"})}, req: Request{Links: []string{"new"}}, want: "n3"},
		"in flight, with a slash":      {nodes: fleetOf(), pending: []Pending{pending(node("n3"), Request{Name: "new"})}, req: Request{Links: []string{"/new"}}, want: "n3"},
		"missing first":                {nodes: fleetOf(), req: Request{Links: []string{"nope", "db"}}, want: "no node fits web: 3 of 3 lack container nope"},
		"missing":                      {nodes: fleetOf(), req: Request{Links: []string{"db", "nope"}}, want: "no node fits web: 2 of 3 lack container db, 1 lacks container nope"},
		"on a lost node":               {nodes: []*fleet.Node{node("n1", "+db", "unhealthy"), node("n2")}, req: Request{Links: []string{"db"}}, want: "no node fits web: 1 of 2 lacks container db, 1 unhealthy"},
		"two apart":                    {nodes: fleetOf(), req: Request{Links: []string{"db", "cache"}}, want: "no node can run web: container db is on n1, container cache is on n2"},
		"filter left out":              {nodes: fleetOf(), req: Request{Links: []string{"db", "cache"}}, filters: []string{"health"}, want: "n1 n2 n3"},
		"twice after a node came back": {nodes: []*fleet.Node{node("n1", "+db"), node("n2", "+db"), node("n3")}, req: Request{Links: []string{"db"}}, want: "n1 n2"},
	})
}

func TestAffinity(t *testing.T) {
	fleetOf := func() []*fleet.Node {
		return []*fleet.Node{
			node("n1", "+front-1,tier=front", "image:nginx:1.27", "image:busybox@sha256:"+digest),
			node("n2", "+front-2,tier=front", "+db,tier=back", "image:example.com/team/app:2"),
			node("n3"),
		}
	}
	id := container("n1", "front-1").ID
	inFlight := []Pending{pending(node("n3"), Request{Name: "new-1", Image: "redis:7", Labels: map[string]string{"tier": "edge"}})}
	runFilterCases(t, map[string]filterCase{
		"container":                {nodes: fleetOf(), rules: []string{"affinity:container==db"}, want: "n2"},
		"not container":            {nodes: fleetOf(), rules: []string{"affinity:container!=db"}, want: "n1 n3"},
		"container glob":           {nodes: fleetOf(), rules: []string{"affinity:container==front-*"}, want: "n1 n2"},
		"container regex":          {nodes: fleetOf(), rules: []string{"affinity:container==/ont-[2-9]/"}, want: "n2"},
		"not container regex":      {nodes: fleetOf(), rules: []string{"affinity:container!=/^front/"}, want: "n3"},
		"container ID":             {nodes: fleetOf(), rules: []string{"affinity:container==" + id}, want: "n1"},
		"container ID prefix":      {nodes: fleetOf(), rules: []string{"affinity:container==" + id[:63]}, want: "n1"},
		"container ID glob":        {nodes: fleetOf(), rules: []string{"affinity:container==" + id[:63] + "*"}, want: "n1"},
		"a short prefix is a name": {nodes: fleetOf(), rules: []string{"affinity:container==" + id[:11]}, want: "no node fits web: 3 of 3 lack affinity container==" + id[:11]},
		"container in flight":      {nodes: fleetOf(), pending: inFlight, rules: []string{"affinity:container==new-1"}, want: "n3"},
		"container glob in flight": {nodes: fleetOf(), pending: inFlight, rules: []string{"affinity:container==new*"}, want: "n3"},
		"repo:tag":                 {nodes: fleetOf(), rules: []string{"affinity:image==nginx:1.27"}, want: "n1"},
		"bare repo":                {nodes: fleetOf(), rules: []string{"affinity:image==nginx"}, want: "n1"},
		"full name":                {nodes: fleetOf(), rules: []string{"affinity:image==docker.io/library/nginx:1.27"}, want: "n1"},
		"other registry":           {nodes: fleetOf(), rules: []string{"affinity:image==example.com/team/app"}, want: "n2"},
		"digest":                   {nodes: fleetOf(), rules: []string{"affinity:image==busybox@sha256:" + digest}, want: "n1"},
		"image ID":                 {nodes: fleetOf(), rules: []string{"affinity:image==sha256:" + zeros(62) + "02"}, want: "n1"},
		"image ID without sha256":  {nodes: fleetOf(), rules: []string{"affinity:image==" + zeros(62) + "02"}, want: "n1"},
		"image glob":               {nodes: fleetOf(), rules: []string{"affinity:image==example.com/*:2"}, want: "n2"},
		"not image":                {nodes: fleetOf(), rules: []string{"affinity:image!=nginx"}, want: "n2 n3"},
		"image in flight":          {nodes: fleetOf(), pending: inFlight, rules: []string{"affinity:image==redis"}, want: "n3"},
		"image in flight, in full": {nodes: fleetOf(), pending: inFlight, rules: []string{"affinity:image==docker.io/library/redis:7"}, want: "n3"},
		"image regex in flight":    {nodes: fleetOf(), pending: inFlight, rules: []string{"affinity:image==/^redis$/"}, want: "n3"},
		"image ID in flight":       {nodes: fleetOf(), pending: []Pending{pending(node("n3"), Request{Image: "sha256:" + digest})}, rules: []string{"affinity:image==sha256:" + digest}, want: "n3"},
		"digest in flight":         {nodes: fleetOf(), pending: []Pending{pending(node("n3"), Request{Image: "docker.io/library/redis@sha256:" + digest})}, rules: []string{"affinity:image==redis@sha256:" + digest}, want: "n3"},
		"image nowhere":            {nodes: fleetOf(), rules: []string{"affinity:image==redis"}, want: "no node fits web: 3 of 3 lack affinity image==redis"},
		"label":                    {nodes: fleetOf(), rules: []string{"affinity:tier==back"}, want: "n2"},
		"not label":                {nodes: fleetOf(), rules: []string{"affinity:tier!=back"}, want: "n1 n3"},
		"label glob":               {nodes: fleetOf(), rules: []string{"affinity:tier==f*"}, want: "n1 n2"},
		"label regex":              {nodes: fleetOf(), rules: []string{"affinity:tier==/^(back|edge)$/"}, pending: inFlight, want: "n2 n3"},
		"label in flight":          {nodes: fleetOf(), pending: inFlight, rules: []string{"affinity:tier!=edge"}, want: "n1 n2"},
		"a missing label is empty": {nodes: fleetOf(), rules: []string{"affinity:nothing==*"}, want: "n1 n2"},
		"all must hold":            {nodes: fleetOf(), rules: []string{"affinity:tier==front", "affinity:container!=db"}, want: "n1"},
		"broken":                   {nodes: fleetOf(), rules: []string{"affinity:tier!=/./", "affinity:container==db"}, want: "no node fits web: 2 of 3 break affinity tier!=/./, 1 lacks affinity container==db"},
		"soft ones never refuse":   {nodes: fleetOf(), rules: []string{"affinity:container==~nope"}, want: "n1 n2 n3"},
		"filter left out":          {nodes: fleetOf(), rules: []string{"affinity:container==db"}, filters: []string{"health"}, want: "n1 n2 n3"},
	})
}

func TestConstraint(t *testing.T) {
	fleetOf := func() []*fleet.Node {
		return []*fleet.Node{node("n1", "size=xxl", "zone=a"), node("n2", "size=m", "zone=b"), node("n3")}
	}
	runFilterCases(t, map[string]filterCase{
		"label":                    {nodes: fleetOf(), rules: []string{"constraint:size==xxl"}, want: "n1"},
		"single =":                 {nodes: fleetOf(), rules: []string{"constraint:size=xxl"}, want: "n1"},
		"not":                      {nodes: fleetOf(), rules: []string{"constraint:size!=xxl"}, want: "n2 n3"},
		"a missing label is empty": {nodes: fleetOf(), rules: []string{"constraint:size==*"}, want: "n1 n2 n3"},
		"executiondriver":          {nodes: fleetOf(), rules: []string{"constraint:executiondriver==*"}, want: "n1 n2 n3"},
		"glob":                     {nodes: fleetOf(), rules: []string{"constraint:size==x*"}, want: "n1"},
		"regex":                    {nodes: fleetOf(), rules: []string{"constraint:size==/^(m|l)$/"}, want: "n2"},
		"not regex":                {nodes: fleetOf(), rules: []string{"constraint:size!=/x/"}, want: "n2 n3"},
		"keys are case-sensitive":  {nodes: fleetOf(), rules: []string{"constraint:SIZE==xxl"}, want: "no node fits web: 3 of 3 lack constraint SIZE==xxl"},
		"node name":                {nodes: fleetOf(), rules: []string{"constraint:node==n2"}, want: "n2"},
		"node name glob":           {nodes: fleetOf(), rules: []string{"constraint:node==n*"}, want: "n1 n2 n3"},
		"not node":                 {nodes: fleetOf(), rules: []string{"constraint:node!=n2"}, want: "n1 n3"},
		"engine ID":                {nodes: fleetOf(), rules: []string{"constraint:node==ID-n2"}, want: "n2"},
		"node ID":                  {nodes: fleetOf(), rules: []string{"constraint:node==ID-n2|10.0.0.1:2376"}, want: "n2"},
		"two":                      {nodes: fleetOf(), rules: []string{"constraint:size!=xxl", "constraint:zone==b"}, want: "n2"},
		"refused":                  {nodes: fleetOf(), rules: []string{"constraint:size!=xxl", "constraint:zone==c"}, want: "no node fits web: 1 of 3 breaks constraint size!=xxl, 2 lack constraint zone==c"},
		"whitelist":                {nodes: fleetOf(), rules: []string{"whitelist:node==n1|n3"}, want: "n1 n3"},
		"whitelist, operator":      {nodes: fleetOf(), rules: []string{"whitelist:any!=n1|n3"}, want: "n1 n3"},
		"whitelist by engine ID":   {nodes: fleetOf(), rules: []string{"whitelist:node==ID-n3"}, want: "n3"},
		"two whitelists":           {nodes: fleetOf(), rules: []string{"whitelist:node==n1|n3", "whitelist:node==n2|n3"}, want: "n3"},
		"not in whitelist":         {nodes: fleetOf(), rules: []string{"whitelist:node==n9"}, want: "no node fits web: 3 of 3 are not in whitelist n9"},
		"soft ones never refuse":   {nodes: fleetOf(), rules: []string{"constraint:size==~s", "whitelist:node==~n9"}, want: "n1 n2 n3"},
		"filters left out":         {nodes: fleetOf(), rules: []string{"constraint:size==xxl", "whitelist:node==n9"}, filters: []string{"health"}, want: "n1 n2 n3"},
	})
}

func TestHardChecks(t *testing.T) {
	n1, n2, n3 := node("n1"), node("n2"), node("n3")
	n2.Arch, n3.API = "arm64", "1.51"
	all := []*fleet.Node{n1.Seal(), n2.Seal(), n3.Seal()}
	tie := func(what string, nodes ...*fleet.Node) Tie {
		tie := Tie{What: what}
		for _, n := range nodes {
			tie.NodeIDs = append(tie.NodeIDs, n.ID)
		}
		return tie
	}
	none := []string{} // no filter at all switches these off
	runFilterCases(t, map[string]filterCase{
		"platform":    {nodes: all, filters: none, req: Request{OS: "linux", Arch: "arm64"}, want: "n2"},
		"OS":          {nodes: all, filters: none, req: Request{OS: "windows"}, want: "no node fits web: 3 of 3 are not windows"},
		"no platform": {nodes: all, filters: none, req: Request{OS: "linux", Arch: "riscv64"}, want: "no node fits web: 3 of 3 are not linux/riscv64"},
		"API":         {nodes: all, filters: none, req: Request{NeedAPI: "1.44", NeedWhat: "several networks"}, want: "n3"},
		"no API":      {nodes: all, filters: none, req: Request{NeedAPI: "1.52", NeedWhat: "x"}, want: "no node fits web: 3 of 3 lack API 1.52 (for x)"},
		"exclude":     {nodes: all, filters: none, req: Request{Exclude: map[string]string{n1.ID: "it timed out", n3.ID: "it timed out"}}, want: "n2"},
		"exclude all": {nodes: all, filters: none, req: Request{Exclude: map[string]string{n1.ID: "b", n2.ID: "a", n3.ID: "b"}},
			want: "no node fits web: 1 of 3 is ruled out: a, 2 are ruled out: b"},
		"tie":      {nodes: all, filters: none, req: Request{Ties: []Tie{tie("network x", n1, n2)}}, want: "n1 n2"},
		"two ties": {nodes: all, filters: none, req: Request{Ties: []Tie{tie("network x", n1, n2), tie("volume y", n2, n3)}}, want: "n2"},
		"a tie and what the node lacks": {nodes: all, req: Request{Arch: "arm64", Ties: []Tie{tie("network x", n1)}},
			want: "no node fits web: 1 of 3 is not where network x is (n1), 2 are not arm64"},
		"tied to a node that left": {nodes: all, req: Request{Ties: []Tie{{What: "volume y", NodeIDs: []string{"gone"}}}},
			want: "no node fits web: 3 of 3 are not where volume y is (gone)"},
		"tied to nothing": {nodes: all, req: Request{Ties: []Tie{{What: "volume y"}}}, want: "no node fits web: 3 of 3 are not where volume y is (nowhere)"},
		"ties apart": {nodes: all, req: Request{Ties: []Tie{tie("network x", n1, n2), tie("volume y", n3)}},
			want: "no node can run web: network x is on n1, n2, volume y is on n3"},
		"tie and dependency apart": {nodes: []*fleet.Node{n1, node("n4", "+db")}, req: Request{Ties: []Tie{tie("network x", n1)}, Links: []string{"db"}},
			want: "no node can run web: network x is on n1, container db is on n4"},
	})
}

func TestResources(t *testing.T) {
	half := func() []*fleet.Node { return []*fleet.Node{node("n1", "+a,3G,3cpu"), node("n2", "+b,1G,1cpu")} }
	runFilterCases(t, map[string]filterCase{
		"memory":         {nodes: half(), req: Request{Memory: 2 << 30}, want: "n2"},
		"CPUs":           {nodes: half(), req: Request{NanoCPUs: 2e9}, want: "n2"},
		"the last of it": {nodes: half(), req: Request{Memory: 1 << 30, NanoCPUs: 1e9}, want: "n1 n2"},
		"overcommit":     {nodes: half(), req: Request{Memory: 3<<30 + 200<<20}, want: "n2"},
		"just over":      {nodes: half(), req: Request{Memory: 3<<30 + 205<<20}, want: "no node fits web: 2 of 2 lack memory (need 3.2GiB)"},
		"in flight":      {nodes: half(), pending: []Pending{pending(node("n2"), Request{Memory: 3 << 30, NanoCPUs: 3e9})}, req: Request{NanoCPUs: 1e9}, want: "n1"},
		"too much":       {nodes: half(), req: Request{Memory: 1 << 40, NanoCPUs: 1e9}, want: "no node fits web: 2 of 2 lack memory (need 1TiB)"},
		"too many":       {nodes: half(), req: Request{Memory: 1 << 20, NanoCPUs: 3.5e9}, want: "no node fits web: 2 of 2 lack CPUs (need 3.5)"},
		"an overfull node only lacks what it lacks": {nodes: []*fleet.Node{node("n1", "+a,9G")}, req: Request{NanoCPUs: 1e9}, want: "n1"},
		"unlimited is not asked for":                {nodes: []*fleet.Node{node("n1", "+a,9G")}, req: Request{Memory: -1}, want: "n1"},
		"an absurd limit":                           {nodes: half(), req: Request{Memory: 1<<63 - 1, NanoCPUs: 1<<63 - 1}, want: "no node fits web: 2 of 2 lack memory (need 8EiB)"},
	})
}

func TestOvercommit(t *testing.T) {
	for name, tt := range map[string]struct {
		overcommit float64
		cpus       int64
		want       string
	}{
		"of CPUs works on small nodes too": {0.05, 4.2e9, "n1"},
		"has its bound":                    {0.05, 4.21e9, "no node fits web: 1 of 1 lacks CPUs (need 4.21)"},
		"may be negative":                  {-0.5, 2.1e9, "no node fits web: 1 of 1 lacks CPUs (need 2.1)"},
		"negative leaves the rest":         {-0.5, 2e9, "n1"},
	} {
		t.Run(name, func(t *testing.T) {
			p := DefaultPolicy()
			p.Overcommit = tt.overcommit
			if got := outcome(View{Snapshot: snapshot(node("n1"))}, &Request{Name: "web", NanoCPUs: tt.cpus}, p); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
