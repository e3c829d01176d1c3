package ssh

import (
	"context"
	"net"
	"strings"
	"testing"
)

func dialer(c *Client, path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx, "unix", path) }
}

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]Target{
		"ssh://h":                     {"", "h", 0, DefaultSocket},
		"ssh://h/":                    {"", "h", 0, DefaultSocket},
		"ssh://root@h:2222":           {"root", "h", 2222, DefaultSocket},
		"ssh://u@h/run/user/1/d.sock": {"u", "h", 0, "/run/user/1/d.sock"},
		"ssh://u@[fe80::1%25eth0]:22": {"u", "fe80::1%eth0", 22, DefaultSocket},
		"ssh://a.b_c-d@my_host-1.lan": {"a.b_c-d", "my_host-1.lan", 0, DefaultSocket},
	} {
		got, err := ParseTarget(in)
		if err != nil || got != want {
			t.Errorf("ParseTarget(%s) = %+v, %v, want %+v", in, got, err, want)
		}
		again, err := ParseTarget(got.String())
		if err != nil || again != got {
			t.Errorf("%s became %s: %+v, %v", in, got, again, err)
		}
	}
	for in, want := range map[string]string{
		"":                      "form",
		"tcp://h:22":            "form",
		"ssh://":                "host is missing",
		"ssh://u@:22":           "host is missing",
		"ssh://h:0":             "port",
		"ssh://h:99999":         "port",
		"ssh://u:secret@h":      "password",
		"ssh://-oX@h":           "not a user name",
		"ssh://-h":              "neither a host name",
		"ssh://h$(id)":          "neither a host name",
		"ssh://[::1%25$(id)]":   "neither a host name",
		"ssh://u;id@h":          "not a user name",
		"ssh://h?x":             "form",
		"ssh://h#x":             "form",
		"ssh://h/../etc/passwd": "plain path",
		"ssh://h//x":            "plain path",
		"ssh://h/a%0ab":         "plain path",
		"ssh:h":                 "form",
	} {
		got, err := ParseTarget(in)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseTarget(%s) = %+v, %v, want an error with %q", in, got, err, want)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"ssh://h", "ssh://u@h:1/p", "ssh://[::1%25x]:1/p", "ssh://%75@h", "ssh://u%20@h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := ParseTarget(in)
		if err != nil {
			return
		}
		if strings.HasPrefix(got.Host, "-") || strings.HasPrefix(got.User, "-") || !strings.HasPrefix(got.Path, "/") {
			t.Fatalf("ParseTarget(%q) = %+v", in, got)
		}
		if again, err := ParseTarget(got.String()); err != nil || again != got {
			t.Fatalf("%q became %q: %+v, %v, want %+v", in, got, again, err, got)
		}
	})
}
