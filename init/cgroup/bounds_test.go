package cgroup

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"kogge.example/update/golden"
)

// TestBounds prints what containers and node get on machines from the smallest on.
func TestBounds(t *testing.T) {
	const mib = 1 << 20
	var table strings.Builder
	for _, memory := range []int64{108, 146, 215, 470, 962, 1900, 3900, 7900, 64000} {
		fmt.Fprintf(&table, "%d MiB, 32768 tasks\n", memory)
		for _, b := range Bounds(memory*mib, 32768) {
			value, err := strconv.ParseInt(b.Value, 10, 64)
			if err != nil && b.Value != "max" {
				t.Fatal(err)
			}
			if strings.HasPrefix(b.File, "memory.") && err == nil {
				b.Value = fmt.Sprintf("%d MiB", value/mib)
			}
			fmt.Fprintf(&table, "  /%-15s %-11s %s\n", b.Group, b.File, b.Value)
		}
	}
	golden.Compare(t, "bounds.txt", table.String())
	if got := Bounds(0, 0); got != nil {
		t.Errorf("of a machine that nobody knows: %v", got)
	}
	// Whatever the size, containers get some of it and the node keeps some.
	for memory := int64(1); memory < 1<<44; memory += memory/3 + 1 {
		if r := Reserve(memory); r < 0 || r > memory/2 {
			t.Errorf("%d bytes: %d are kept", memory, r)
		}
	}
}

// TestBind sets what it can, and names what the kernel has no file for.
func TestBind(t *testing.T) {
	tree := paper(t, "")
	for _, b := range Bounds(1<<30, 1000)[:5] {
		if err := os.WriteFile(tree.file(b.Group, b.File), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err := tree.Bind(Bounds(1<<30, 1000))
	if err == nil || !strings.Contains(err.Error(), "/workload pids.max") || strings.Contains(err.Error(), "memory") {
		t.Errorf("error %v does not name pids.max alone", err)
	}
	if got, want := tree.read(Workload, "memory.max"), strconv.FormatInt(1<<30-Reserve(1<<30), 10); got != want {
		t.Errorf("memory.max of the containers: %q, want %q", got, want)
	}
}
