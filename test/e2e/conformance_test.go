//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// check is one line of the list of conformance checks, which docs/compatibility.md shows.
type check struct {
	name    string
	needs   string // the environment variable that names a program this check cannot do without
	pending string // what of it cannot be checked before another part of berth is built
	run     func(*testing.T, *world)
}

// conformance are the checks in the order of their numbers, which are for good: a fleet has to behave as one engine does.
var conformance = []check{
	{"ping without any node", "", "", pingWithoutNodes},
	{"API versions old, new, too old and too new", "", "", apiVersions},
	{"run with clients of several API versions on every node", "", "", clientVersions},
	{"unknown paths and methods", "", "", unknownPaths},
	{"docker ps while a node is dead", "", "", psWithDeadNode},
	{"inspect of a container on a dead node", "", "", inspectOnDeadNode},
	{"docker info adds up", "", "", infoAddsUp},
	{"docker version is one of Docker's", "", "", versionParses},
	{"a container's name is taken once", "", "", nameTakenOnce},
	{"a container by all its names", "", "", allItsNames},
	{"input of docker run over unix, tcp and TLS", "", "", inputOverAll},
	{"half-closed input of docker exec", "", "", execHalfClose},
	{"64 MiB of input", "", "", muchInput},
	{"output of docker-py's exec", "", "", pyExec},
	{"attach without an upgrade", "", "", attachPlain},
	{"attach with the input in the request", "", "", attachEarlyInput},
	{"docker run -it in a terminal", "", "", runInTerminal},
	{"exit codes of docker run --rm", "", "", exitCodes},
	{"attach over a websocket", "", "", attachWebsocket},
	{"detach keys and attach again", "", "", detachAndAttach},
	{"clients that are killed leave nothing open", "", "", killedClients},
	{"docker logs as it is written, and in part", "", "", logsAsWritten},
	{"docker wait while nothing happens", "", "", longWait},
	{"docker stop of what does not stop", "", "", longStop},
	{"docker cp both ways", "", "", copyBothWays},
	{"export, commit, diff, top, rename, update as the engine's", "", "", asTheEngine},
	{"docker build with BuildKit, and run elsewhere", "BERTH_BUILDX", "", buildKit},
	{"builds of two clients and many builds of one", "BERTH_BUILDX", "", manyBuilds},
	{"buildx drivers remote and docker-container", "BERTH_BUILDX", "", buildxDrivers},
	{"bodies that trickle while output streams", "", "", trickledBodies},
	{"docker pull, and with a node that cannot", "", "", pullWithLameNode},
	{"an unknown image is pulled once, where it is needed", "", "", pullOnceWhereNeeded},
	{"a tag that moved on one node", "", "", movedTag},
	{"docker rmi of used and unused images", "", "", removeImages},
	{"docker save of images on two nodes", "", "", saveFromTwoNodes},
	{"an image on three nodes is one", "", "", oneImage},
	{"credentials of a push are nobody else's", "", "", pushCredentials},
	{"compose up", "", "", composeUp},
	{"compose up again recreates nothing", "", "", composeUpAgain},
	{"compose up with a constraint moves the project's home", "", "", composeConstraint},
	{"the other commands of compose", "", "", composeCommands},
	{"compose down -v leaves nothing", "", "", composeDown},
	{"many compose projects at once", "", "", manyProjects},
	{"several networks in one create on an old engine", "", "", severalNetworks},
	{"a network's name is taken once, and built-in ones are shown once", "", "", networkNames},
	{"docker network connect on one node and over two", "", "", connectOverNodes},
	{"a volume's name on two nodes", "", "", volumeOnTwoNodes},
	{"docker volume create twice and rm -f of none", "", "", volumeTwice},
	{"docker volume prune keeps named volumes", "", "", pruneKeepsNamed},
	{"events of all nodes, each once", "", "", eventsOnce},
	{"events of the past, over an engine's restart", "", "", eventsOfThePast},
	{"filters of events", "", "", eventFilters},
	{"events in the form of the client's API", "", "", eventForms},
	{"docker stats of many containers", "", "", statsOfMany},
	{"docker system df adds up", "", "", usageAddsUp},
	{"docker system prune on every node", "", "what users may prune of each other's (users)", systemPrune},
	{"Testcontainers and its reaper", "", "", testcontainers},
	{"published ports that are unique over the fleet", "", "", uniquePorts},
	{"one host port on two nodes", "", "", hostPortTwice},
	{"lists as strict clients read them", "", "", strictLists},
	{"Swarm mode is refused clearly", "", "", swarmRefused},
	{"TLS turns strangers away", "", "what users can see and do of each other's (users)", tlsStrangers},
	{"quotas", "", "all of it (quotas)", nil},
	{"the endpoint over ssh", "", "", overSSH},
	{"HTTP/2", "", "", http2Lists},
	{"archives with and without gzip", "", "", archiveGzip},
	{"the manager is killed and comes back", "", "", managerKilled},
	{"many requests and streams leave nothing open", "", "", manyStreams},
	{"an engine restarts in the middle of a stream", "", "", engineRestarts},
	{"no node fits, and ties that contradict each other", "", "", noNodeFits},
	{"plugins, search and manifests", "", "", pluginsAndRegistries},
	{"dev containers", "", "", devContainers},
}

// A fleet behaves as one engine does: the list of checks, by number.
func TestConformance(t *testing.T) {
	w := fleet(t)
	t.Cleanup(func() {
		if mixedFleet == nil {
			return
		}
		if err := mixedFleet.down(); err != nil {
			t.Error(err)
		}
		mixedFleet = nil
	})
	for i, c := range conformance {
		t.Run(fmt.Sprintf("%02d %s", i+1, c.name), func(t *testing.T) {
			switch {
			case c.run == nil:
				t.Skip("pending: " + c.pending)
			case c.needs != "" && os.Getenv(c.needs) == "":
				t.Skip("nightly: " + c.needs + " names no program")
			}
			t.Cleanup(func() { w.sweep(t) })
			c.run(t, w)
		})
	}
}

// conformanceList is what docs/compatibility.md is made from.
const conformanceList = "../../internal/api/testdata/conformance.txt"

// The list that people read is the one that is checked.
func TestConformanceList(t *testing.T) {
	var want strings.Builder
	for i, c := range conformance {
		when := "every run"
		switch {
		case c.run == nil:
			when = "pending"
		case c.needs != "":
			when = "nightly"
		}
		fmt.Fprintf(&want, "%02d | %s | %s | %s\n", i+1, c.name, when, c.pending)
	}
	same(t, "number of checks", len(conformance), 72)
	got, err := os.ReadFile(conformanceList)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want.String() {
		t.Errorf("%s is not the list of checks, which is:\n%s", conformanceList, want.String())
	}
}

// nightly tells whether there is time: rounds and delays are then as long as the checks ask for.
func nightly() bool { return os.Getenv("BERTH_NIGHTLY") != "" }

// rounds is how often something is done.
func rounds(usually, atNight int) int {
	if nightly() {
		return atNight
	}
	return usually
}

// lasting is how long something takes.
func lasting(usually, atNight time.Duration) time.Duration {
	if nightly() {
		return atNight
	}
	return usually
}

// program is a nightly program by the environment variable that names it; "" if it is not there.
func program(name string) string { return os.Getenv(name) }

// direct is the stock client at a machine's engine, behind the endpoint's back.
func (w *world) direct(t *testing.T, node string, args ...string) *exec.Cmd {
	t.Helper()
	return w.command("docker", append([]string{"-H", "unix://" + w.engineSocket(t, node)}, args...)...)
}

// dead kills a machine; it lives again after the test.
func (w *world) dead(t *testing.T, node string) {
	t.Helper()
	must(t, w.command("berth", "kill", node))
	t.Cleanup(func() { w.revive(t, node) })
	eventually(t, 10*time.Second, node+" is seen to be dead", func() bool { return w.node(t, node).State != "Healthy" })
}

// revive starts a machine unless it runs, and waits until it is part of the fleet.
func (w *world) revive(t *testing.T, node string) {
	t.Helper()
	if do(t, w.command("berth", "status", node)).out != "Running\n" {
		must(t, w.command("berth", "start", node))
	}
	eventually(t, 20*time.Second, node+" is healthy", func() bool { // by command: this may run after the test's context has ended
		return healthyIn(t, must(t, w.docker("info", "--format", "{{json .SystemStatus}}")), node)
	})
}

// create makes a container through the API and returns its ID.
func (w *world) create(t *testing.T, name, body string) string {
	t.Helper()
	a := w.api(t, "POST", "/v1.41/containers/create?name="+name, body)
	var made struct {
		ID string `json:"Id"`
	}
	a.into(t, &made)
	if a.status != 201 || made.ID == "" {
		t.Fatalf("create %s: %d %s", name, a.status, a.body)
	}
	return made.ID
}

// quickly is a failure that a client gets at once.
func quickly(t *testing.T, what string, r result, code int, limit time.Duration) {
	t.Helper()
	if r.code != code || r.took > limit {
		t.Errorf("%s: exit %d after %s, want %d within %s\n%s%s", what, r.code, r.took, code, limit, r.out, r.err)
	}
}

// all runs functions at once and joins what went wrong.
func all(n int, run func(i int) error) error {
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- run(i) }()
	}
	var joined error
	for range n {
		joined = errors.Join(joined, <-errs)
	}
	return joined
}

// outcome runs a command for goroutines other than the test's, which must not end it.
func outcome(cmd *exec.Cmd, want string) error {
	out, err := cmd.Output()
	if err != nil || string(out) != want {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			return fmt.Errorf("%s: %w: %s", shown(cmd), err, failed.Stderr)
		}
		return fmt.Errorf("%s: %q, %w", shown(cmd), out, err)
	}
	return nil
}
