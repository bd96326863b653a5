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
	Replaced  Change = "replaced"  // by one of the same name
	Restarted Change = "restarted" // as it is, for it goes by one that is replaced
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
// images, and what goes by a container that is replaced is restarted, and so on. all are
// those of the plan that stay.
func (p Plan) with(outdated map[string]bool, all []workload.Container) Plan {
	change := make(map[string]*Change)
	for i, step := range p {
		change[step.Container] = &p[i].Change
		if step.Change == Unchanged && outdated[step.Container] {
			p[i].Change = Replaced
		}
	}
	follows := func(d workload.Dependency) bool {
		of := change[d.ID]
		return d.Restart && of != nil && (*of == Replaced || *of == Restarted)
	}
	for more := true; more; {
		more = false
		for _, c := range all {
			if its := change[c.ID]; its != nil && *its == Unchanged && slices.ContainsFunc(c.After, follows) {
				*its, more = Restarted, true
			}
		}
	}
	return p
}
