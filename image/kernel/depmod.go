package kernel

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
)

// Index is what depmod would write for a set of modules: text files by name.
type Index struct{ Dep, Alias, Softdep []byte }

// Depmod writes the index of modules, which holds every dependency of its own.
//
// Source: modules.dep(5) and the files that depmod 34 writes.
func Depmod(modules []Module) Index {
	byName := map[string]Module{}
	for _, m := range modules {
		byName[m.Name] = m
	}
	sorted := append([]Module(nil), modules...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Path < sorted[j].Path })
	var dep, alias, softdep bytes.Buffer
	for _, m := range sorted {
		fmt.Fprintf(&dep, "%s:", m.Path)
		for _, d := range allDepends(byName, m.Name, map[string]bool{m.Name: true}) {
			fmt.Fprintf(&dep, " %s", byName[d].Path)
		}
		fmt.Fprintln(&dep)
		for _, a := range m.Aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", a, m.Name)
		}
		if len(m.Softdeps) > 0 {
			fmt.Fprintf(&softdep, "softdep %s pre:", m.Name)
			for _, s := range m.Softdeps {
				fmt.Fprintf(&softdep, " %s", s)
			}
			fmt.Fprintln(&softdep)
		}
	}
	return Index{Dep: dep.Bytes(), Alias: alias.Bytes(), Softdep: softdep.Bytes()}
}

// allDepends lists what name needs, each before what it needs itself: whoever
// loads the list from its end finds every module's own needs met.
func allDepends(byName map[string]Module, name string, seen map[string]bool) []string {
	var order []string // in load order
	for _, d := range byName[name].Depends {
		if _, ok := byName[d]; !ok || seen[d] {
			continue // built in, or listed already
		}
		seen[d] = true
		order = append(order, reversed(allDepends(byName, d, seen))...)
		order = append(order, d)
	}
	return reversed(order)
}

func reversed(s []string) []string {
	slices.Reverse(s)
	return s
}
