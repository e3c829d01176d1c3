package dockertest

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// logsOf is what a container wrote.
func logsOf(t *testing.T, d *Daemon, name string) string {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.findContainer(name)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, ch := range c.out.chunks {
		b.Write(ch.data)
	}
	return b.String()
}

func TestCommandsPlayThemselves(t *testing.T) {
	for name, tt := range map[string]struct {
		cmd   []string
		state string
		code  int
		out   string
	}{
		"true":                      {[]string{"true"}, "exited", 0, ""},
		"false":                     {[]string{"/bin/false"}, "exited", 1, ""},
		"exit":                      {[]string{"sh", "-c", "exit 3"}, "exited", 3, ""},
		"echo":                      {[]string{"echo", "a", "b c"}, "exited", 0, "a b c\n"},
		"both streams":              {[]string{"sh", "-c", "echo out; echo err >&2"}, "exited", 0, "out\nerr\n"},
		"quotes and &&":             {[]string{"sh", "-c", `echo "a;b" && echo 'c  d'`}, "exited", 0, "a;b\nc  d\n"},
		"last status counts":        {[]string{"sh", "-c", "true; false"}, "exited", 1, ""},
		"sleep":                     {[]string{"sleep", "5"}, "running", 0, ""},
		"sleep for ever":            {[]string{"sleep", "infinity"}, "running", 0, ""},
		"bad sleep":                 {[]string{"sleep", "x"}, "exited", 1, "sleep: invalid number 'x'\n"},
		"cat without stdin":         {[]string{"cat"}, "exited", 0, ""},
		"cat of a file":             {[]string{"cat", "/etc/hostname"}, "exited", 0, "box\n"},
		"cat of nothing":            {[]string{"cat", "/nope"}, "exited", 1, "cat: can't open '/nope': No such file or directory\n"},
		"hostname":                  {[]string{"hostname"}, "exited", 0, "box\n"},
		"env":                       {[]string{"env"}, "exited", 0, "A=b\nPATH=/bin\n"},
		"seq":                       {[]string{"seq", "3"}, "exited", 0, "1\n2\n3\n"},
		"loops run for ever":        {[]string{"sh", "-c", "echo up; while true; do sleep 1; done"}, "running", 0, "up\n"},
		"unknown programs serve":    {[]string{"nginx", "-g", "daemon off;"}, "running", 0, ""},
		"exec replaces the shell":   {[]string{"sh", "-c", "exec echo hi; echo never"}, "exited", 0, "hi\n"},
		"sleeping comes before out": {[]string{"sh", "-c", "sleep 1; echo late"}, "running", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := New(t, Options{Network: "mem", Images: []string{"busybox"}})
			mustDo(t, d, 201, "POST", "/containers/create?name=box", map[string]any{"Image": "busybox", "Cmd": tt.cmd, "Hostname": "box", "Env": []string{"A=b"}})
			mustDo(t, d, 204, "POST", "/containers/box/start", nil)
			c, _ := d.Find("box")
			if out := logsOf(t, d, "box"); c.State != tt.state || c.ExitCode != tt.code || out != tt.out {
				t.Errorf("%q: %s (%d) %q, want %s (%d) %q", tt.cmd, c.State, c.ExitCode, out, tt.state, tt.code, tt.out)
			}
		})
	}
}

func TestMissingExecutable(t *testing.T) {
	d := New(t, Options{})
	d.AddContainer(Container{Name: "bad", Cmd: []string{"nosuchcmd"}, State: "created"})
	got := message(t, mustDo(t, d, 400, "POST", "/containers/bad/start", nil))
	if !strings.HasSuffix(got, `exec: "nosuchcmd": executable file not found in $PATH: unknown`) {
		t.Errorf("message = %q", got)
	}
	if c, _ := d.Find("bad"); c.State != "created" || c.ExitCode != 127 {
		t.Errorf("bad is %s (%d), want created (127)", c.State, c.ExitCode)
	}
}

// inBubble runs a test with the clock of a synctest bubble.
func inBubble(t *testing.T, f func(t *testing.T, d *Daemon)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := New(nil, Options{Network: "mem"})
		defer d.Close()
		f(t, d)
	})
}

func stateOf(d *Daemon, name string) (string, int) {
	c, ok := d.Find(name)
	if !ok {
		return "gone", 0
	}
	return c.State, c.ExitCode
}

func TestSleepEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, d *Daemon) {
		d.AddContainer(Container{Name: "nap", Cmd: []string{"sh", "-c", "sleep 5; echo awake; exit 2"}})
		time.Sleep(5*time.Second - time.Nanosecond)
		synctest.Wait()
		if s, _ := stateOf(d, "nap"); s != "running" {
			t.Errorf("nap is %s just before its time", s)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if s, code := stateOf(d, "nap"); s != "exited" || code != 2 || logsOf(t, d, "nap") != "awake\n" {
			t.Errorf("nap is %s (%d), said %q", s, code, logsOf(t, d, "nap"))
		}
	})
}

func TestStopKillsWhoIgnoresIt(t *testing.T) {
	inBubble(t, func(t *testing.T, d *Daemon) {
		d.AddContainer(Container{Name: "deaf", Cmd: []string{"sh", "-c", "trap '' TERM; while true; do sleep 1; done"}})
		d.AddContainer(Container{Name: "polite", Cmd: []string{"sh", "-c", "trap 'exit 5' TERM; while true; do sleep 1; done"}})
		begin := time.Now()
		mustDo(t, d, 204, "POST", "/containers/deaf/stop?t=120", nil)
		if took := time.Since(begin); took != 120*time.Second {
			t.Errorf("stop of deaf took %s, want 120s", took)
		}
		if s, code := stateOf(d, "deaf"); s != "exited" || code != 137 {
			t.Errorf("deaf is %s (%d), want exited (137)", s, code)
		}
		begin = time.Now()
		mustDo(t, d, 204, "POST", "/containers/polite/stop", nil)
		if s, code := stateOf(d, "polite"); s != "exited" || code != 5 || time.Since(begin) != 0 {
			t.Errorf("polite is %s (%d) after %s, want exited (5) at once", s, code, time.Since(begin))
		}
		mustDo(t, d, 304, "POST", "/containers/polite/stop", nil)
	})
}

func TestPauseStopsTheClock(t *testing.T) {
	inBubble(t, func(t *testing.T, d *Daemon) {
		d.AddContainer(Container{Name: "nap", Cmd: []string{"sleep", "5"}})
		mustDo(t, d, 204, "POST", "/containers/nap/pause", nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s, _ := stateOf(d, "nap"); s != "paused" {
			t.Errorf("nap is %s while paused", s)
		}
		mustDo(t, d, 204, "POST", "/containers/nap/unpause", nil)
		if s, _ := stateOf(d, "nap"); s != "exited" {
			t.Errorf("nap is %s after the pause, its time is over", s)
		}
	})
}

func TestRestartPolicies(t *testing.T) {
	inBubble(t, func(t *testing.T, d *Daemon) {
		policy := func(name string, retries int) map[string]any {
			return map[string]any{"RestartPolicy": map[string]any{"Name": name, "MaximumRetryCount": retries}}
		}
		d.AddContainer(Container{Name: "always", HostConfig: policy("always", 0)})
		d.AddContainer(Container{Name: "twice", Cmd: []string{"sh", "-c", "sleep 1; exit 7"}, HostConfig: policy("on-failure", 2)})
		d.Exit("always", 1)
		if s, _ := stateOf(d, "always"); s != "restarting" {
			t.Errorf("always is %s right after its exit", s)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s, _ := stateOf(d, "always"); s != "running" {
			t.Errorf("always is %s later", s)
		}
		if s, code := stateOf(d, "twice"); s != "exited" || code != 7 {
			t.Errorf("twice is %s (%d), want exited (7) after two retries", s, code)
		}
		mustDo(t, d, 204, "POST", "/containers/always/stop", nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s, _ := stateOf(d, "always"); s != "exited" {
			t.Errorf("always is %s after a stop", s)
		}
	})
}
