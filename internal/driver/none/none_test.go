package none_test

import (
	"fmt"
	"strings"
	"testing"

	"berth/internal/driver/drivertest"
	"berth/internal/driver/none"
	"berth/internal/machine"
)

func TestDriver(t *testing.T) {
	made := 0
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		t.Helper()
		made++
		return drivertest.Subject{Driver: none.New(), Spec: spec(t, t.TempDir(), fmt.Sprintf("tcp://192.0.2.%d:2376", made))}
	})
}

func spec(t *testing.T, dir, url string) machine.Spec {
	t.Helper()
	return machine.Spec{Name: "m", Dir: dir, Values: map[string]any{"url": url}, Progress: func(string) {}}
}

func TestCreateKeepsTheAddress(t *testing.T) {
	i, err := none.New().Create(t.Context(), spec(t, t.TempDir(), "tcp://[2001:db8::1]:2376"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := i.IPAddress+" "+string(i.Raw), `2001:db8::1 {"URL":"tcp://[2001:db8::1]:2376"}`; got != want {
		t.Errorf("instance = %s, want %s", got, want)
	}
}

func TestCreateRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ url, want string }{
		"no address":      {"", "--url option is required when no driver is selected"},
		"no address even": {"tcp://[::1", "--url: "},
	} {
		t.Run(name, func(t *testing.T) {
			check := none.New().(machine.PreChecker)
			err := check.PreCreateCheck(t.Context(), spec(t, t.TempDir(), tt.url))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("check of %q = %v, want %s", tt.url, err, tt.want)
			}
		})
	}
}
