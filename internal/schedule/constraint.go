package schedule

import (
	"slices"
	"strings"
	"unique"
)

// test tells whether a node satisfies an expression.
type test func(*candidate) bool

// keyNode is the constraint key that means a node's name or ID instead of a label.
const keyNode = "node"

// exprStage refuses nodes that do not satisfy a hard expression. Soft ones are wishes, counted elsewhere.
func exprStage(name string, exprs []Expr, compile func(Expr) test, classic func(Expr) string) *stage {
	if len(exprs) == 0 {
		return nil
	}
	s := &stage{name: name}
	var tests []test
	for _, e := range exprs {
		s.classic = append(s.classic, classic(e))
		if e.Soft {
			continue
		}
		tests = append(tests, compile(e))
		text := name + " " + e.String()
		if e.Not {
			s.reasons = append(s.reasons, reason{"breaks " + text, "break " + text})
		} else {
			s.reasons = append(s.reasons, reason{"lacks " + text, "lack " + text})
		}
	}
	s.check = func(c *candidate) int {
		for i, ok := range tests {
			if !ok(c) {
				return i
			}
		}
		return fits
	}
	return s
}

// constraintTest compares a node's name and IDs, or one of its labels; a label that it lacks is "".
func constraintTest(e Expr) test {
	if e.Key == keyNode {
		return func(c *candidate) bool {
			n := c.node
			return (e.pattern.match(n.Name) || e.pattern.match(n.EngineID) || e.pattern.match(n.ID)) != e.Not
		}
	}
	match := e.pattern.texts()
	key, missing := unique.Make(e.Key), unique.Make("")
	return func(c *candidate) bool { return match(c.facts.Label(key, missing)) != e.Not }
}

// whitelistTest looks for the node among the names between the bars. Key and operator are not looked at: so it was in
// classic Swarm, where only this form was ever documented.
func whitelistTest(e Expr) test {
	names := strings.Split(e.Value, "|")
	return func(c *candidate) bool {
		n := c.node
		return slices.Contains(names, n.Name) || n.EngineID != "" && slices.Contains(names, n.EngineID)
	}
}

func constraintStage(r *Request) *stage {
	return exprStage(FilterConstraint, r.Rules.Constraints, constraintTest, Expr.String)
}

func whitelistStage(r *Request) *stage {
	s := exprStage(FilterWhitelist, r.Rules.Whitelists, whitelistTest, Expr.spelled)
	if s == nil {
		return nil
	}
	s.reasons = s.reasons[:0]
	for _, e := range r.Rules.Whitelists {
		if !e.Soft {
			s.reasons = append(s.reasons, reason{"is not in whitelist " + e.Value, "are not in whitelist " + e.Value})
		}
	}
	return s
}
