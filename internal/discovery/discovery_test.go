package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// watchOnce returns the first set of a source that never changes.
func watchOnce(t *testing.T, s Source) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	if err := s.Watch(ctx, func(addrs []string) { got = addrs; cancel() }); err != nil {
		t.Fatalf("Watch: %v", err)
	}
	return got
}

func TestParseNodes(t *testing.T) {
	for name, tt := range map[string]struct {
		url  string
		want []string
	}{
		"a list":                   {"nodes://10.0.0.1:2375,10.0.0.2:2375", []string{"10.0.0.1:2375", "10.0.0.2:2375"}},
		"a bare list":              {"10.0.0.1:2375, 10.0.0.2:2375,", []string{"10.0.0.1:2375", "10.0.0.2:2375"}},
		"one":                      {"node-1.example.com:2376", []string{"node-1.example.com:2376"}},
		"each once":                {"a:1,b:1,a:1", []string{"a:1", "b:1"}},
		"upper-case scheme":        {"NODES://a:1", []string{"a:1"}},
		"range":                    {"10.0.0.[9:11]:2375", []string{"10.0.0.9:2375", "10.0.0.10:2375", "10.0.0.11:2375"}},
		"range in the port":        {"127.0.0.1:[2375:2376]", []string{"127.0.0.1:2375", "127.0.0.1:2376"}},
		"range of one":             {"a[3:3]:1", []string{"a3:1"}},
		"two ranges":               {"r[1:2]n[1:2]:1", []string{"r1n1:1", "r1n2:1", "r2n1:1", "r2n2:1"}},
		"padded range":             {"n[08:10]:1", []string{"n08:1", "n09:1", "n10:1"}},
		"unpadded from zero":       {"n[0:1]:1", []string{"n0:1", "n1:1"}},
		"IPv6":                     {"[::1]:2375", []string{"[::1]:2375"}},
		"IPv6 that looks a range":  {"[1::2]:2375,[1:2:3:4:5:6:7:8]:1", []string{"[1::2]:2375", "[1:2:3:4:5:6:7:8]:1"}},
		"IPv6 with a zone":         {"[fe80::1%eth0]:2375", []string{"[fe80::1%eth0]:2375"}},
		"IPv6 with a ranged port":  {"[::1]:[1:2]", []string{"[::1]:1", "[::1]:2"}},
		"other ways to an engine":  {"unix:///run/docker.sock,ssh://root@h,ssh://h:22/run/d.sock,tcp://h:1", []string{"unix:///run/docker.sock", "ssh://root@h", "ssh://h:22/run/d.sock", "tcp://h:1"}},
		"the same behind nodes://": {"nodes://unix:///run/docker.sock,ssh://h[1:2]", []string{"unix:///run/docker.sock", "ssh://h1", "ssh://h2"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Parse(tt.url, Options{})
			if err != nil {
				t.Fatalf("Parse(%q): %v", tt.url, err)
			}
			if diff := cmp.Diff(tt.want, watchOnce(t, s)); diff != "" {
				t.Errorf("Parse(%q) (-want +got):\n%s", tt.url, diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	long := strings.Repeat("a", 1<<20)
	for name, tt := range map[string]struct{ url, want string }{
		"nothing":             {"", "no address"},
		"an empty list":       {"nodes://,,", "no address"},
		"no port":             {"10.0.0.1", "the port is missing: write 10.0.0.1:2376"},
		"no port, IPv6":       {"[::1]", "the port is missing: write [::1]:2376"},
		"no port, tcp":        {"tcp://h", "the port is missing: write h:2376"},
		"no host":             {":2375", "the host is missing"},
		"port 0":              {"h:0", `port "0"`},
		"port too large":      {"h:65536", `port "65536"`},
		"port by name":        {"h:docker", `port "docker"`},
		"a path":              {"h:1/x", "port"},
		"a blank":             {"a b:1", "blank"},
		"a control character": {"a\x00b:1", "control"},
		"a shell word":        {"$(id):1", "neither a host name nor an IP address"},
		"a dash":              {"-oProxyCommand=x:1", "neither a host name"},
		"a dash alone":        {"-h:1", "not a host name"},
		"a dash as user":      {"ssh://-l@h", "begins with a dash"},
		"downwards":           {"h[3:1]:1", "counts downwards"},
		"an open bracket":     {"h[1:2:1", "host:port"},
		"a range of words":    {"h[a:b]:1", "host:port"},
		"too many":            {"h[1:1000000]:1", "more than 100000"},
		"too many together":   {"h[1:400][1:400]:1", "more than 100000"},
		"too many in all":     {"h[1:60000]:1,i[1:60000]:1", "more than 100000"},
		"huge numbers":        {"h[0:18446744073709551615]:1", "too large"},
		"overflowing":         {"h[0:9223372036854775807][0:9223372036854775807]:1", "more than 100000"},
		"a megabyte":          {long, "longer than 1024"},
		"a relative socket":   {"unix://docker.sock", "absolute path"},
		"http":                {"nodes://http://h:1", "not reached by http://"},
		"no file":             {"file://", "names no file"},
		"a store":             {"etcd://10.0.0.1/prefix", "nodes://HOST:PORT,…, file:///PATH"},
		"ssh with a query":    {"ssh://h?x=y", "ssh://user@host"},
		"ssh without a host":  {"ssh://", "the host is missing"},
		"ssh with a bad port": {"ssh://h:x", "ssh://user@host"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(tt.url, Options{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Parse(%.80q) = %v, want an error with %q", tt.url, err, tt.want)
			}
			if len(err.Error()) > 500 {
				t.Errorf("an error of %d characters", len(err.Error()))
			}
		})
	}
}

func TestErrorsHideSecrets(t *testing.T) {
	for _, url := range []string{"ssh://root:hunter2@h", "token://hunter2", "zk://u:hunter2@h/p", "tcp://u:hunter2@h:1", "ssh://u:hunter2@[1:200000]h"} {
		if _, err := Parse(url, Options{}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Parse(%s) = %v, want an error without the secret", url, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, d := range []time.Duration{-time.Second, time.Millisecond, time.Second - 1} {
		if _, err := Parse("a:1", Options{Heartbeat: d}); err == nil {
			t.Errorf("heartbeat %v: no error", d)
		}
	}
	var warned []string
	o := Options{
		Warn: func(err error) { warned = append(warned, err.Error()) },
		Opts: map[string]string{"kv.path": "x", "a": "secret"},
	}
	if _, err := Parse("a:1", o); err != nil {
		t.Fatal(err)
	}
	want := []string{"discovery option a has no meaning for nodes://", "discovery option kv.path has no meaning for nodes://"}
	if diff := cmp.Diff(want, warned); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// Whatever updates keep or change in their slice is theirs.
func TestUpdateOwnsItsSlice(t *testing.T) {
	s, err := Parse("a:1,b:1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	watchOnce(t, s)[0] = "changed"
	if got := watchOnce(t, s); got[0] != "a:1" {
		t.Errorf("the second Watch says %v, want a:1 first", got)
	}
}

func TestRangesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.IntRange(0, 2000).Draw(t, "low")
		num := rapid.IntRange(1, 50).Draw(t, "num")
		width := rapid.IntRange(1, 6).Draw(t, "width")
		before := rapid.StringMatching(`[a-z]{0,4}`).Draw(t, "before")
		after := rapid.StringMatching(`[a-z]{0,4}`).Draw(t, "after")
		other := rapid.IntRange(1, 20).Draw(t, "other")

		lo, hi := fmt.Sprintf("%0*d", width, low), fmt.Sprintf("%0*d", width, low+num-1)
		if len(lo) != len(hi) { // padding only shows where both fit
			width = 1
			lo, hi = fmt.Sprint(low), fmt.Sprint(low+num-1)
		}
		entry := fmt.Sprintf("%s[%s:%s]%s[1:%d]:1", before, lo, hi, after, other)
		got, err := expand(entry, maxAddrs)
		if err != nil {
			t.Fatalf("expand(%q): %v", entry, err)
		}
		var want []string
		for i := range num {
			for j := range other {
				want = append(want, fmt.Sprintf("%s%0*d%s%d:1", before, width, low+i, after, j+1))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("expand(%q) (-want +got):\n%s", entry, diff)
		}
	})
}

// What has no digits:digits in brackets is passed through as it is.
func TestNoRangeProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entry := rapid.StringMatching(`[a-z0-9:.\[\]]{0,40}`).Draw(t, "entry")
		if rangePattern.MatchString(entry) {
			t.Skip("has a range")
		}
		got, err := expand(entry, maxAddrs)
		if err != nil || !slices.Equal(got, []string{entry}) {
			t.Fatalf("expand(%q) = %q, %v", entry, got, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"nodes://10.0.0.[1:3]:2375", "a:1,b:2", "file://x", "ssh://u@h:1/p", "[::1]:[1:3]", "unix:///x",
		"n[01:12]:1", "n[1:2][3:4]:5", "[[1:2]]:3", "etcd://x", "://", "[1:2", "ssh://[::1]:22/x", "ssh://%41@h",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, url string) {
		s, err := Parse(url, Options{})
		if err != nil {
			return
		}
		list, isList := s.(nodes)
		if !isList {
			return
		}
		if len(list) == 0 || len(list) > maxAddrs {
			t.Fatalf("Parse(%q): %d addresses", url, len(list))
		}
		for _, a := range list[:min(len(list), 20)] {
			again, err := Parse(a, Options{})
			if err != nil {
				t.Fatalf("Parse(%q) gave %q, which is refused: %v", url, a, err)
			}
			if got := again.(nodes); !slices.Equal(got, nodes{a}) {
				t.Fatalf("Parse(%q) = %q", a, got)
			}
		}
	})
}

func TestUnsupportedListsWhatIs(t *testing.T) {
	_, err := Parse("consul://127.0.0.1:8500/x", Options{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"consul://", "nodes://", "file://", "unix://", "ssh://"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	if errors.Unwrap(err) != nil {
		t.Errorf("unexpected cause in %v", err)
	}
}
