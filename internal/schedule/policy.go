package schedule

import (
	"fmt"
	"slices"
	"strings"
)

// The strategies.
const (
	Spread  = "spread"
	Binpack = "binpack"
	Random  = "random"
)

// binpacking is classic Swarm's other name for Binpack.
const binpacking = "binpacking"

// The filters.
const (
	FilterHealth     = "health"
	FilterPort       = "port"
	FilterSlots      = "containerslots"
	FilterDependency = "dependency"
	FilterAffinity   = "affinity"
	FilterConstraint = "constraint"
	FilterWhitelist  = "whitelist"
)

// Policy is how the operator wants nodes chosen. The zero value is classic Swarm's but for Overcommit.
type Policy struct {
	Strategy   string   // "" is Spread
	Filters    []string // in the order they are asked; nil is all. What is left out is not looked at
	Overcommit float64  // 0.05: give away 5 % more memory and CPU than a node has; negative: less
	// CountRunningOnly lets the strategies count running containers instead of all.
	CountRunningOnly bool
}

// DefaultPolicy is classic Swarm's default.
func DefaultPolicy() Policy {
	return Policy{Strategy: Spread, Filters: allFilters(), Overcommit: 0.05}
}

func allFilters() []string {
	return []string{
		FilterHealth, FilterPort, FilterSlots, FilterDependency, FilterAffinity, FilterConstraint, FilterWhitelist,
	}
}

// Check tells what is wrong with a policy.
func (p Policy) Check() error {
	switch p.Strategy {
	case "", Spread, Binpack, binpacking, Random:
	default:
		return fmt.Errorf("strategy not supported: %q is none of spread, binpack, random", p.Strategy)
	}
	for _, f := range p.Filters {
		if !slices.Contains(allFilters(), f) {
			return fmt.Errorf("filter not supported: %q is none of %s", f, strings.Join(allFilters(), ", "))
		}
	}
	if !(p.Overcommit > -1) { // also false for NaN
		return fmt.Errorf("overcommit %v: must be larger than -1", p.Overcommit)
	}
	return nil
}

// filters is the list without repetitions.
func (p Policy) filters() []string {
	if p.Filters == nil {
		return allFilters()
	}
	var once []string
	for _, f := range p.Filters {
		if !slices.Contains(once, f) {
			once = append(once, f)
		}
	}
	return once
}

func (p Policy) strategy() string {
	switch p.Strategy {
	case "":
		return Spread
	case binpacking:
		return Binpack
	}
	return p.Strategy
}
