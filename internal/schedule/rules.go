package schedule

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"berth/internal/fleet"
)

// Rules are the expressions that a container's environment and labels carry.
type Rules struct {
	Constraints, Affinities, Whitelists []Expr
	// Reschedule is off, on-node-failure or restart-empty, which is more than that; "" if nothing was said.
	Reschedule string
}

// Merge returns r's rules and then those of o that r does not have. r's reschedule policy wins.
func (r Rules) Merge(o Rules) Rules {
	if r.Reschedule == "" {
		r.Reschedule = o.Reschedule
	}
	r.Constraints = union(r.Constraints, o.Constraints)
	r.Affinities = union(r.Affinities, o.Affinities)
	r.Whitelists = union(r.Whitelists, o.Whitelists)
	return r
}

func union(a, b []Expr) []Expr {
	all := slices.Clip(a)
	for _, e := range b {
		if !slices.ContainsFunc(a, func(have Expr) bool { return have.String() == e.String() }) {
			all = append(all, e)
		}
	}
	return all
}

// RuleError says what is wrong with an expression or reschedule policy.
type RuleError struct {
	Kind string // constraint, affinity, whitelist or reschedule
	Text string // what was written
	Err  error
}

func (e *RuleError) Error() string {
	if e.Kind == reschedule {
		return e.Err.Error()
	}
	return fmt.Sprintf("error from %s filter: %.200q: %v", e.Kind, e.Text, e.Err)
}

func (e *RuleError) Unwrap() error { return e.Err }

// InvalidParameter makes it errdefs.ErrInvalidArgument.
func (e *RuleError) InvalidParameter() {}

const reschedule = "reschedule"

// kinds are the prefixes in the environment, and the labels that hold the same as a JSON list.
func kinds() []struct{ kind, label string } {
	return []struct{ kind, label string }{
		{FilterConstraint, fleet.LabelConstraints},
		{FilterAffinity, fleet.LabelAffinities},
		{FilterWhitelist, fleet.LabelWhitelists},
		{reschedule, fleet.LabelReschedule},
	}
}

// ParseRules takes the rules out of a container's environment and labels. The environment it returns is free of them; the
// labels hold them all, those of the environment after those that were labels, as classic Swarm stores them. What it was
// given is not changed. Networks' and volumes' labels are read with a nil env.
func ParseRules(env []string, labels map[string]string) (rules Rules, cleanEnv []string, cleanLabels map[string]string, err error) {
	cleanEnv, found := splitEnv(env)
	written := map[string]string{}
	for _, k := range kinds() {
		texts, err := fromLabel(k.kind, labels[k.label])
		if err != nil {
			return Rules{}, nil, nil, err
		}
		texts, err = rules.add(k.kind, append(texts, found[k.kind]...))
		if err != nil {
			return Rules{}, nil, nil, err
		}
		if len(found[k.kind]) == 0 {
			continue
		}
		list, err := json.Marshal(texts)
		if err != nil {
			return Rules{}, nil, nil, fmt.Errorf("write label %s: %w", k.label, err)
		}
		written[k.label] = string(list)
	}
	if len(written) == 0 {
		return rules, cleanEnv, labels, nil
	}
	maps.Copy(written, without(labels, written))
	return rules, cleanEnv, written, nil
}

// without is labels but for the keys of others.
func without(labels, others map[string]string) map[string]string {
	rest := maps.Clone(labels)
	maps.DeleteFunc(rest, func(key, _ string) bool { _, there := others[key]; return there })
	return rest
}

// add parses the texts of a kind and returns them as classic Swarm would have them written, each once.
func (r *Rules) add(kind string, texts []string) ([]string, error) {
	if kind == reschedule {
		return r.addReschedule(texts)
	}
	var list []Expr
	for _, text := range texts {
		e, err := parseExpr(text)
		if err != nil {
			return nil, &RuleError{kind, text, err}
		}
		list = union(list, []Expr{e})
	}
	switch kind {
	case FilterConstraint:
		r.Constraints = list
	case FilterAffinity:
		r.Affinities = list
	case FilterWhitelist:
		r.Whitelists = list
	}
	canonical := make([]string, len(list))
	for i, e := range list {
		canonical[i] = e.String()
	}
	return canonical, nil
}

func (r *Rules) addReschedule(texts []string) ([]string, error) {
	slices.Sort(texts)
	texts = slices.Compact(texts)
	switch {
	case len(texts) == 0:
		return nil, nil
	case len(texts) > 1 && slices.Contains(texts, fleet.PolicyOff):
		return nil, &RuleError{reschedule, strings.Join(texts, " "), problem("too many reschedule policies")}
	}
	for _, text := range texts {
		if text != fleet.PolicyOff && text != fleet.PolicyOnFailure && text != fleet.PolicyRestartEmpty {
			return nil, &RuleError{reschedule, text, problem(fmt.Sprintf("invalid reschedule policy: %.200s", text))}
		}
	}
	r.Reschedule = texts[len(texts)-1] // restart-empty is the last in order
	return texts, nil
}

// splitEnv returns the plain environment and the texts of the rules by kind.
func splitEnv(env []string) (plain []string, found map[string][]string) {
	found = map[string][]string{}
	plain = env[:0:0]
	for _, entry := range env {
		kind, text, ok := strings.Cut(entry, ":")
		switch {
		case ok && slices.Contains([]string{FilterConstraint, FilterAffinity, FilterWhitelist, reschedule}, kind):
			found[kind] = append(found[kind], text)
		default:
			plain = append(plain, entry)
		}
	}
	return plain, found
}

func fromLabel(kind, value string) ([]string, error) {
	if value == "" {
		return nil, nil
	}
	var texts []string
	if err := json.Unmarshal([]byte(value), &texts); err != nil {
		return nil, &RuleError{kind, value, fmt.Errorf("the label must hold a JSON list of strings: %w", err)}
	}
	return texts, nil
}
