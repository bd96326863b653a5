package compose

import (
	"cmp"
	"slices"
	"time"

	"go.yaml.in/yaml/v4"

	"kogge.example/agent/workload"
)

// Limits of a health check's times: below the first it is the load itself, above
// the second nobody means it.
const (
	leastInterval = 100 * time.Millisecond
	longestHealth = 24 * time.Hour
)

func (s *service) healthcheck(n *yaml.Node) {
	h := &workload.Health{}
	off := false
	before := s.reported()
	wait := func(to *time.Duration, least time.Duration) func(*yaml.Node) {
		return func(n *yaml.Node) {
			*to = s.duration(n, longestHealth)
			if *to != 0 && *to < least {
				s.report(n, "%s: at least %s", s.at.shown, least)
			}
		}
	}
	s.fields(n, map[string]func(*yaml.Node){
		"disable":        func(n *yaml.Node) { off = off || s.boolean(n) },
		"test":           func(n *yaml.Node) { off = s.test(n, h) || off },
		"interval":       wait(&h.Interval, leastInterval),
		"timeout":        wait(&h.Timeout, leastInterval),
		"start_period":   wait(&h.StartPeriod, 0),
		"start_interval": wait(&h.StartInterval, leastInterval),
		"retries":        func(n *yaml.Node) { h.Retries = int(s.integer(n, 0, 1000)) },
	})
	if s.reported() > before {
		return
	}
	if off {
		s.Health = &workload.Health{Off: true}
		return
	}
	h.Interval = cmp.Or(h.Interval, workload.DefaultHealthInterval)
	h.Timeout = cmp.Or(h.Timeout, workload.DefaultHealthTimeout)
	h.StartInterval = cmp.Or(h.StartInterval, workload.DefaultHealthStartInterval)
	h.Retries = cmp.Or(h.Retries, workload.DefaultHealthRetries)
	s.Health = h
}

// test reads the command of a health check, and says whether there shall be none.
func (s *service) test(n *yaml.Node, h *workload.Health) (off bool) {
	if n.Kind == yaml.ScalarNode {
		if line := s.text(n); line != "" {
			h.Test = shell(line)
		}
		return false
	}
	var words []string
	s.list(n, "test", func(item *yaml.Node) { words = append(words, s.text(item)) })
	switch {
	case len(words) == 0:
	case words[0] == "NONE" && len(words) == 1:
		return true
	case words[0] == "CMD" && len(words) > 1:
		h.Test = words[1:]
		return false
	case words[0] == "CMD-SHELL" && len(words) > 1:
		h.Test = shell(words[1:]...)
		return false
	}
	s.report(n, `test: expected a line for the shell, ["CMD", PROGRAM, ARGUMENT …], ["CMD-SHELL", LINE] or ["NONE"]`)
	return false
}

// shell runs a line; more becomes its $0, $1 and so on.
func shell(line ...string) []string { return append([]string{"/bin/sh", "-c"}, line...) }

// dependency is an entry of depends_on, with where it stands.
type dependency struct {
	workload.Dependency
	node *yaml.Node
}

func (s *service) dependsOn(n *yaml.Node) {
	if n.Kind == yaml.SequenceNode {
		s.list(n, "depends_on", func(item *yaml.Node) { s.needs(item, s.text(item), workload.WhenStarted) })
		return
	}
	s.names(n, func(k, v *yaml.Node) {
		d := dependency{node: k, Dependency: workload.Dependency{ID: k.Value, Condition: workload.WhenStarted}}
		s.fields(v, map[string]func(*yaml.Node){
			"condition": func(n *yaml.Node) {
				switch s.text(n) {
				case "service_started":
				case "service_healthy":
					d.Condition = workload.WhenHealthy
				case "service_completed_successfully":
					d.Condition = workload.WhenCompleted
				default:
					s.report(n, "condition: expected service_started, service_healthy or service_completed_successfully, got %s", describe(n))
				}
			},
			"required": func(n *yaml.Node) { d.Optional = !s.boolean(n) },
			"restart":  func(n *yaml.Node) { d.Restart = s.boolean(n) },
		})
		s.after = append(s.after, d)
	})
}

// links means depends_on: names work without.
func (s *service) links(n *yaml.Node) {
	s.list(n, "links", func(item *yaml.Node) {
		id := s.text(item)
		if !label(id) {
			s.report(item, "links: %s: an alias is not supported on a node: use the service's name", describe(item))
			return
		}
		s.needs(item, id, workload.WhenStarted)
	})
}

// needs adds a dependency, unless there is one on id.
func (s *service) needs(n *yaml.Node, id string, c workload.Condition) {
	if !slices.ContainsFunc(s.after, func(d dependency) bool { return d.ID == id }) {
		s.after = append(s.after, dependency{node: n, Dependency: workload.Dependency{ID: id, Condition: c}})
	}
}

// dependencies puts what services depend on into all, and reports what cannot be.
func (p *parser) dependencies(all []workload.Container, wanted map[string][]dependency) {
	index := make(map[string]int, len(all))
	for i, c := range all {
		index[c.ID] = i
	}
	for i := range all {
		c := &all[i]
		for _, d := range unique(wanted[c.ID]) {
			at, known := index[d.ID]
			switch {
			case !known && d.Optional:
				continue // Compose: it may be missing
			case !known:
				p.report(d.node, "services.%s.depends_on: there is no service %q", c.ID, d.ID)
				continue
			case d.Condition == workload.WhenHealthy && all[at].Health != nil && all[at].Health.Off:
				p.report(d.node, "services.%s.depends_on: %s has its health check turned off", c.ID, d.ID)
			case d.Condition == workload.WhenCompleted && all[at].Restart.Policy == workload.Always:
				p.report(d.node, "services.%s.depends_on: %s never completes: it has restart: always", c.ID, d.ID)
			}
			c.After = append(c.After, d.Dependency)
		}
		slices.SortFunc(c.After, func(a, b workload.Dependency) int { return cmp.Compare(a.ID, b.ID) })
	}
	p.cycles(all, index, wanted)
}

// unique keeps the first of several dependencies on one service, and of links and
// depends_on the one that says more.
func unique(all []dependency) []dependency {
	slices.SortStableFunc(all, func(a, b dependency) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(all, func(a, b dependency) bool { return a.ID == b.ID })
}

// cycles reports each dependency that closes a circle.
func (p *parser) cycles(all []workload.Container, index map[string]int, wanted map[string][]dependency) {
	const fresh, open, closed = 0, 1, 2
	state := make([]int, len(all))
	// Depth first, with a stack of our own: a file can have a chain of any length.
	type frame struct{ service, next int }
	for i := range all {
		if state[i] != fresh {
			continue
		}
		stack := []frame{{service: i}}
		state[i] = open
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			after := all[top.service].After
			if top.next == len(after) {
				state[top.service] = closed
				stack = stack[:len(stack)-1]
				continue
			}
			id := after[top.next].ID
			top.next++
			switch at := index[id]; state[at] {
			case fresh:
				state[at] = open
				stack = append(stack, frame{service: at})
			case open:
				p.circle(all, wanted, top.service, id)
			}
		}
	}
}

func (p *parser) circle(all []workload.Container, wanted map[string][]dependency, from int, id string) {
	for _, d := range wanted[all[from].ID] {
		if d.ID == id {
			p.report(d.node, "services.%s.depends_on: %s depends on %s as well, so neither can start first", all[from].ID, id, all[from].ID)
			return
		}
	}
}
