package fleet

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReschedulePolicies(t *testing.T) {
	for text, want := range map[string]Reschedule{
		`["on-node-failure"]`: RescheduleOnFailure, `["off"]`: RescheduleOff, `["on-node-failure","restart-empty"]`: RescheduleEmpty,
		`["restart-empty"]`: RescheduleEmpty, `nonsense`: RescheduleOff, ``: RescheduleOff,
	} {
		if got := ParseReschedule(LabelsOf(map[string]string{LabelReschedule: text})); got != want {
			t.Errorf("%s = %d, want %d", text, got, want)
		}
	}
	if got := ParseReschedule(""); got != RescheduleOff {
		t.Errorf("no label = %d", got)
	}
}

func TestStaleNames(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for name, want := range map[string]string{
		StaleName("web", id): "web", StaleName("web-stale-1", id): "web-stale-1", "web": "", "web-stale-ffffffffffff": "", "-stale-0123456789ab": "",
		"web-stalx-0123456789ab": "", "0123456789ab": "",
	} {
		if was, is := Stale(name, id); was != want || is != (want != "") {
			t.Errorf("%s = %q, %v", name, was, is)
		}
	}
}

func TestMarksOfRescues(t *testing.T) {
	r := Rescue{From: []string{"b"}, Node: "n2", Run: true}.After("b", "", "a", "a")
	want := &Rescue{From: []string{"b", "a"}, Node: "n2", Run: true}
	got := ParseRescue(LabelsOf(map[string]string{LabelRescued: r.Label()}))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{"", "x", "{}", `{"From":[""]}`} {
		if got := ParseRescue(LabelsOf(map[string]string{LabelRescued: text})); got != nil {
			t.Errorf("%q = %+v", text, got)
		}
	}
}
