package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/golden"
)

// TestDefaultPolicy holds the bytes of the defaults: they are in each genesis that says nothing else.
func TestDefaultPolicy(t *testing.T) {
	p := DefaultPolicy()
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	raw, err := document.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "policy-default.json", string(raw))
}

// TestPolicyCheck says of each limit what is wrong with it.
func TestPolicyCheck(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		name string
		edit func(*Policy)
	}{
		{"default", func(*Policy) {}},
		{"trial policy", func(p *Policy) { *p = TrialPolicy() }},
		{"no canary", func(p *Policy) { p.Canaries = 0 }},
		{"one step", func(p *Policy) { p.Steps = []int{100} }},
		{"not all", func(p *Policy) { p.Steps = []int{5, 99} }},
		{"first step", func(p *Policy) { p.Steps = []int{60, 100} }},
		{"falling steps", func(p *Policy) { p.Steps = []int{15, 5, 100} }},
		{"step twice", func(p *Policy) { p.Steps = []int{5, 5, 100} }},
		{"short bake", func(p *Policy) { p.Bake = document.Duration(time.Minute) }},
		{"negative bake", func(p *Policy) { p.Bake = -1 }},
		{"short last bake", func(p *Policy) { p.LastBake = p.Bake - 1 }},
		{"no emergency bake", func(p *Policy) { p.Emergency.Bake = 0 }},
		{"undecided", func(p *Policy) { p.Undecided = p.Bake }},
		{"break-glass", func(p *Policy) { p.BreakGlass = day }},
		{"reader", func(p *Policy) { p.Propose = RoleReader }},
		{"nobody", func(p *Policy) { p.Propose = "" }},
		{"votes", func(p *Policy) { p.Votes = 1001 }},
		{"trial", func(p *Policy) {
			p.Trial, p.Bake, p.LastBake, p.BreakGlass = true, document.Duration(time.Minute), document.Duration(time.Minute), document.Duration(10*time.Minute)
		}},
		{"trial without a bake", func(p *Policy) { p.Trial, p.Bake = true, 0 }},
	} {
		p := DefaultPolicy()
		c.edit(&p)
		err := p.Check()
		if err != nil && !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: %v", c.name, err)
		}
		fmt.Fprintf(&b, "%-20s  %v\n", c.name, err)
	}
	golden.Compare(t, "policy-check.txt", b.String())
}
