package schedule

import (
	"cmp"
	"slices"
	"strings"
	"unique"

	"github.com/distribution/reference"

	"berth/internal/fleet"
)

// The affinity keys that mean a container's or an image's name or ID instead of a container label.
const (
	keyContainer = "container"
	keyImage     = "image"
)

// shortID is how much of a container's ID must be given to be one: what docker ps shows.
const shortID = 12

func (p *plan) affinityStage() *stage {
	return exprStage(FilterAffinity, p.req.Rules.Affinities, p.affinityTest, Expr.spelled)
}

// affinityTest looks for containers, images or container labels on the node. Creates in flight count as containers.
func (p *plan) affinityTest(e Expr) test {
	var has test
	switch e.Key {
	case keyContainer:
		has = p.hasContainer(e.pattern)
	case keyImage:
		has = hasImage(e.pattern)
	default:
		has = hasLabel(e.Key, e.pattern)
	}
	return func(c *candidate) bool { return has(c) != e.Not }
}

// hasContainer asks the fleet's indexes once for a name or ID; patterns are tried on every container.
func (p *plan) hasContainer(pat pattern) test {
	if word, ok := pat.word(); ok {
		on := p.containerNodes(word)
		return func(c *candidate) bool { return on[c.node] }
	}
	matches := func(c *fleet.Container) bool { return pat.match(c.Name) || pat.match(c.ID) }
	return func(c *candidate) bool {
		return slices.ContainsFunc(c.node.Containers, matches) ||
			c.load.any(func(o *Request) bool { return pat.match(o.Name) })
	}
}

func (p *plan) containerNodes(word string) map[*fleet.Node]bool {
	on := p.named(word)
	if len(word) < shortID {
		return on
	}
	// What is ambiguous is no ID, and no node has it.
	if ref, err := p.snapshot.Container(word); err == nil && strings.HasPrefix(ref.Container.ID, word) {
		on[ref.Node] = true
	}
	return on
}

func hasImage(pat pattern) test {
	if word, ok := pat.word(); ok {
		return hasImageNamed(spellings(word))
	}
	match := pat.texts()
	pending := func(o *Request) bool { return usesImage(o, pat.match) }
	return func(c *candidate) bool {
		return slices.ContainsFunc(c.facts.ImageNames(), match) || c.load.any(pending)
	}
}

func hasImageNamed(names []string) test {
	texts := make([]fleet.Text, len(names))
	for i, name := range names {
		texts[i] = unique.Make(name)
	}
	pending := func(o *Request) bool {
		return usesImage(o, func(s string) bool { return slices.Contains(names, s) })
	}
	return func(c *candidate) bool {
		there := c.facts.ImageNames()
		for _, t := range texts {
			if slices.Contains(there, t) {
				return true
			}
		}
		return c.load.any(pending)
	}
}

// spellings are the ways in which engines list what the user calls by this name.
func spellings(word string) []string {
	names := []string{word}
	if len(word) == 64 {
		names = append(names, "sha256:"+word)
	}
	named, err := reference.ParseNormalizedNamed(word)
	if err != nil {
		return names // an ID
	}
	if familiar := reference.FamiliarString(named); familiar != word {
		names = append(names, familiar)
	}
	return names
}

// usesImage tells whether a create in flight will have brought a matching image to its node.
func usesImage(o *Request, match func(string) bool) bool {
	tag, digest := fleet.FamiliarRef(o.Image)
	if tag == "" && digest == "" {
		return o.Image != "" && match(o.Image) // an ID
	}
	name := cmp.Or(tag, digest)
	return match(name) || match(fleet.Repository(name))
}

func hasLabel(key string, pat pattern) test {
	text, match := unique.Make(key), pat.texts()
	pending := func(o *Request) bool { return pat.match(o.Labels[key]) }
	return func(c *candidate) bool {
		return slices.ContainsFunc(c.facts.LabelValues(text), match) || c.load.any(pending)
	}
}
