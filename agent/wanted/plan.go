package wanted

import (
	"slices"
	"strings"

	"kogge.example/agent/workload"
)

// Change is what becomes of one container.
type Change string

// The changes.
const (
	New       Change = "new"
	Replaced  Change = "replaced" // by one of the same name
	Unchanged Change = "unchanged"
	Gone      Change = "gone"
)

// Step is what an apply does to one container.
type Step struct {
	Container string
	Image     string // "" where it goes
	Change    Change
}

// Plan is what an apply does, by name of the containers.
type Plan []Step

// difference says how to come from before to after.
func difference(before, after []workload.Container) Plan {
	old := make(map[string]string)
	for _, c := range before {
		old[c.ID] = c.Hash()
	}
	var plan Plan
	for _, c := range after {
		change := New
		if hash, known := old[c.ID]; known && hash == c.Hash() {
			change = Unchanged
		} else if known {
			change = Replaced
		}
		plan = append(plan, Step{c.ID, c.Image, change})
		delete(old, c.ID)
	}
	for id := range old {
		plan = append(plan, Step{id, "", Gone})
	}
	slices.SortFunc(plan, func(a, b Step) int { return strings.Compare(a.Container, b.Container) })
	return plan
}

// with is the plan where these containers, unchanged by themselves, are replaced for their
// images.
func (p Plan) with(outdated map[string]bool) Plan {
	for i, step := range p {
		if step.Change == Unchanged && outdated[step.Container] {
			p[i].Change = Replaced
		}
	}
	return p
}
