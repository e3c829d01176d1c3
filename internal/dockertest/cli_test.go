package dockertest

import (
	"bytes"
	"os"
	osexec "os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// docker runs the stock CLI against the daemon; without one on this machine the test is over.
func docker(t *testing.T, d *Daemon, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	path, err := osexec.LookPath("docker")
	if err != nil {
		t.Skip("no docker CLI on this machine; client_test.go covers the same routes")
	}
	cmd := osexec.CommandContext(t.Context(), path, append([]string{"-H", d.Addr()}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir(), "DOCKER_HOST=", "DOCKER_CONTEXT=")
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func TestStockCLI(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			d := New(t, Options{Network: network, Images: []string{"busybox"}, Pullable: []string{"alpine"}})
			soon := strconv.FormatInt(time.Now().Unix()+3, 10)
			for _, tt := range []struct {
				stdin, args, out, err string
				code                  int
			}{
				{"", "run --rm busybox echo hi", "hi\n", "", 0},
				{"hello\n", "run -i --rm busybox cat", "hello\n", "", 0},
				{"", "run --name three busybox sh -c exit\t3", "", "", 3},
				{"", "run --name streams busybox sh -c echo\tout;\techo\terr\t>&2", "out\n", "err\n", 0},
				{"", "run --rm alpine true", "", "Status: Downloaded newer image for alpine:latest\n", 0},
				{"", "run --rm nope true", "", "pull access denied for nope", 125},
				{"", "create --name web -p 8080:80 busybox sleep 1000", "\n", "", 0},
				{"", "start web", "web\n", "", 0},
				{"", "ps --format {{.Names}}\t{{.Ports}}", "web 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp\n", "", 0},
				{"", "port web", "80/tcp -> [::]:8080\n", "", 0},
				{"", "exec web sh -c echo\ta;\texit\t4", "a\n", "", 4},
				{"12345", "exec -i web wc -c", "5\n", "", 0},
				{"", "logs streams", "out\n", "err\n", 0},
				{"", "rename web app", "", "", 0},
				{"", "top app", "sleep 1000", "", 0},
				{"", "inspect -f {{.State.Status}} app", "running\n", "", 0},
				{"", "pause app", "app\n", "", 0},
				{"", "unpause app", "app\n", "", 0},
				{"", "stop app", "app\n", "", 0},
				{"", "wait app", "143\n", "", 0},
				{"", "rm app three streams", "app\nthree\nstreams\n", "", 0},
				{"", "rm app", "", "No such container: app", 1},
				{"", "tag busybox mine:2", "", "", 0},
				{"", "images --format {{.Repository}}:{{.Tag}} mine", "mine:2\n", "", 0},
				{"", "rmi mine:2", "Untagged: mine:2\n", "", 0},
				{"", "network create back", "\n", "", 0},
				{"", "network rm back", "back\n", "", 0},
				{"", "volume create data", "data\n", "", 0},
				{"", "volume rm data", "data\n", "", 0},
				{"", "info --format {{.ServerVersion}}", "20.10.24\n", "", 0},
				{"", "version --format {{.Server.APIVersion}}", "1.41\n", "", 0},
				{"", "system df", "Local Volumes", "", 0},
				{"", "events --since 0 --until 1", "", "", 0},
				{"", "events --since 0 --until " + soon + " --filter event=die --filter container=three", "container die", "", 0},
			} {
				args := strings.Split(tt.args, " ")
				for i := range args {
					args[i] = strings.ReplaceAll(args[i], "\t", " ") // a tab stands for a space inside an argument
				}
				out, errOut, code := docker(t, d, tt.stdin, args...)
				if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errOut, tt.err) {
					t.Errorf("docker %s = %d %q %q\nwant %d %q %q", tt.args, code, out, errOut, tt.code, tt.out, tt.err)
				}
			}
		})
	}
}

func TestStockCLIInteractive(t *testing.T) {
	d := New(t, Options{Images: []string{"busybox"}})
	out, errOut, code := docker(t, d, "echo one\nexit 6\n", "run", "-i", "--name", "shell", "busybox", "sh")
	if out != "one\n" || code != 6 {
		t.Errorf("docker run -i sh = %d %q %q", code, out, errOut)
	}
	for range 20 {
		if out, errOut, code := docker(t, d, "hi\n", "run", "-i", "--rm", "busybox", "cat"); out != "hi\n" || code != 0 {
			t.Fatalf("docker run -i cat = %d %q %q", code, out, errOut)
		}
		if _, errOut, code := docker(t, d, "", "run", "--rm", "busybox", "sh", "-c", "exit 3"); code != 3 {
			t.Fatalf("docker run exit 3 = %d %q", code, errOut)
		}
	}
}
