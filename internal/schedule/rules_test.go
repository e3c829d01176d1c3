package schedule

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"berth/internal/fleet"
)

func describe(r Rules) string {
	var words []string
	for _, group := range []struct {
		kind  string
		exprs []Expr
	}{{"c", r.Constraints}, {"a", r.Affinities}, {"w", r.Whitelists}} {
		for _, e := range group.exprs {
			words = append(words, group.kind+":"+e.String())
		}
	}
	if r.Reschedule != "" {
		words = append(words, "r:"+r.Reschedule)
	}
	return strings.Join(words, " ")
}

func TestParseRules(t *testing.T) {
	env := []string{
		"A=1", "constraint:size=xxl", "affinity:image==~nginx", "B", "whitelist:node==n1|n2", "reschedule:on-node-failure",
		"constraint:zone!=a", "constraint:size==xxl", "constraints:x==y",
	}
	labels := map[string]string{"x": "y", fleet.LabelConstraints: `["zone!=a","disk==ssd"]`}
	envWas, labelsWere := slices.Clone(env), maps.Clone(labels)
	r, cleanEnv, cleanLabels, err := ParseRules(env, labels)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describe(r), "c:zone!=a c:disk==ssd c:size==xxl a:image==~nginx w:node==n1|n2 r:on-node-failure"; got != want {
		t.Errorf("rules = %s, want %s", got, want)
	}
	if want := []string{"A=1", "B", "constraints:x==y"}; !slices.Equal(cleanEnv, want) {
		t.Errorf("env = %q, want %q", cleanEnv, want)
	}
	want := map[string]string{
		"x": "y", fleet.LabelConstraints: `["zone!=a","disk==ssd","size==xxl"]`, fleet.LabelAffinities: `["image==~nginx"]`,
		fleet.LabelWhitelists: `["node==n1|n2"]`, fleet.LabelReschedule: `["on-node-failure"]`,
	}
	if !maps.Equal(cleanLabels, want) {
		t.Errorf("labels = %q, want %q", cleanLabels, want)
	}
	if !slices.Equal(env, envWas) || !maps.Equal(labels, labelsWere) {
		t.Errorf("ParseRules changed what it was given: %q, %q", env, labels)
	}
	again, _, labelsAgain, err := ParseRules(cleanEnv, cleanLabels)
	if err != nil || describe(again) != describe(r) || !maps.Equal(labelsAgain, cleanLabels) {
		t.Errorf("the stored labels give %s, %q, %v, want the same rules again", describe(again), labelsAgain, err)
	}
}

func TestParseRulesWithoutRules(t *testing.T) {
	r, env, labels, err := ParseRules(nil, nil)
	if err != nil || describe(r) != "" || env != nil || labels != nil {
		t.Errorf("ParseRules(nil, nil) = %v, %q, %q, %v, want nothing", r, env, labels, err)
	}
	_, env, labels, err = ParseRules([]string{}, map[string]string{})
	if err != nil || env == nil || labels == nil {
		t.Errorf("ParseRules keeps %v, %v, %v, want what was empty to stay empty and not become null", env, labels, err)
	}
	_, _, labels, err = ParseRules([]string{"constraint:a==b"}, nil)
	if err != nil || labels[fleet.LabelConstraints] != `["a==b"]` {
		t.Errorf("labels = %q, %v, want the constraint", labels, err)
	}
}

func TestParseRulesErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		env    string
		labels map[string]string
		want   string
	}{
		"expression":          {"constraint:node=", nil, `error from constraint filter: "node=": Value '' is invalid`},
		"only a slash":        {"constraint:node==/", nil, `error from constraint filter: "node==/": Value '/' is invalid: a regular expression stands between two slashes`},
		"affinity":            {"affinity:x", nil, `error from affinity filter: "x": One of operator ==, != is expected`},
		"whitelist":           {"whitelist:x", nil, `error from whitelist filter: "x": One of operator ==, != is expected`},
		"policy":              {"reschedule:always", nil, "invalid reschedule policy: always"},
		"off and on":          {"reschedule:off", map[string]string{fleet.LabelReschedule: `["restart-empty"]`}, "too many reschedule policies"},
		"policies":            {"reschedule:off", map[string]string{fleet.LabelReschedule: `["on-node-failure"]`}, "too many reschedule policies"},
		"label is no list":    {"", map[string]string{fleet.LabelAffinities: "x==y"}, `error from affinity filter: "x==y": the label must hold a JSON list of strings: invalid character 'x' looking for beginning of value`},
		"expression in label": {"", map[string]string{fleet.LabelConstraints: `["x"]`}, `error from constraint filter: "x": One of operator ==, != is expected`},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, _, err := ParseRules([]string{tt.env}, tt.labels)
			if err == nil || err.Error() != tt.want {
				t.Fatalf("error = %v, want %s", err, tt.want)
			}
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%v is not an invalid parameter", err)
			}
		})
	}
}

func TestMerge(t *testing.T) {
	a := rules(t, "constraint:a==1", "affinity:x==y")
	b := rules(t, "constraint:a==1", "constraint:b==2", "whitelist:node==n1", "reschedule:off")
	if got, want := describe(a.Merge(b)), "c:a==1 c:b==2 a:x==y w:node==n1 r:off"; got != want {
		t.Errorf("a.Merge(b) = %s, want %s", got, want)
	}
	if got, want := describe(a), "c:a==1 a:x==y"; got != want {
		t.Errorf("after Merge a = %s, want %s", got, want)
	}
	a = rules(t, "constraint:a==1", "constraint:a==2", "constraint:a==3")
	c := a.Merge(rules(t, "constraint:c==3"))
	d := a.Merge(rules(t, "constraint:d==4"))
	if describe(c) != "c:a==1 c:a==2 c:a==3 c:c==3" || describe(d) != "c:a==1 c:a==2 c:a==3 c:d==4" {
		t.Errorf("two merges share memory: %s and %s", describe(c), describe(d))
	}
}
