package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"kogge.example/qemu"
)

// fleetNodes are the VMs of the fleet that is measured: three members of etcd and a follower.
const fleetNodes = 4

// fleet boots a fleet as kogge vm fleet does, and measures what it costs when nobody asks anything,
// and how long it is without a leader, or without a machine.
func (b *bench) fleet(ctx context.Context, idle time.Duration) ([]row, error) {
	lone, err := b.three(ctx, 1) // as kogge vm fleet has them
	if err != nil {
		return nil, err
	}
	cpu := 0.0
	for _, v := range lone[1].Values {
		cpu += v
	}
	w := b.worker("fleet", 512)
	w.env = append(w.env, "KOGGE_FLEET=vms")
	if err := w.buildCLI(ctx); err != nil {
		return nil, err
	}
	three, end, err := w.found(ctx, 3)
	if err != nil {
		return nil, err
	}
	end()
	all := []row{
		{What: "three lone boots until each answers: CPU of all", Unit: "s", Values: []float64{cpu}},
		{What: "three nodes until the fleet is whole: CPU of all, beyond that", Unit: "s", Values: []float64{three - cpu}, Goal: 15},
	}
	if _, end, err = w.found(ctx, fleetNodes); err != nil {
		return nil, err
	}
	defer end()
	for _, take := range []func(context.Context) ([]row, error){
		func(ctx context.Context) ([]row, error) { return w.rest(ctx, idle) },
		w.leaderLost,
	} {
		rows, err := take(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	return all, nil
}

var usedCPU = regexp.MustCompile(`have used ([0-9.]+) CPU seconds`)

// found has kogge vm fleet boot so many nodes and found a fleet of them. It returns the CPU seconds
// until all was well; end shuts them down.
func (w *worker) found(ctx context.Context, nodes int) (cpu float64, end func(), err error) {
	cmd := exec.CommandContext(ctx, w.cli, "vm", "fleet", "--direct", "--nodes", strconv.Itoa(nodes))
	cmd.Dir, cmd.Env, cmd.Stderr = w.source, w.env, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	end = func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
	}
	lines := bufio.NewScanner(out)
	well := false
	for lines.Scan() {
		well = well || lines.Text() == "All is well."
		if m := usedCPU.FindStringSubmatch(lines.Text()); m != nil {
			if cpu, err = strconv.ParseFloat(m[1], 64); err == nil && !well {
				err = fmt.Errorf("the fleet of %d is not well", nodes)
			}
			go func() { _, _ = io.Copy(io.Discard, out) }()
			if err != nil {
				end()
			}
			return cpu, end, err
		}
	}
	end()
	return 0, nil, fmt.Errorf("kogge vm fleet ended before the fleet was whole")
}

// member is a row of kogge fleet members --json.
type member struct {
	Node     string `json:"node"`
	Role     string `json:"role"`
	Revision int64  `json:"revision"`
}

// members asks the fleet who runs etcd.
func (w *worker) members(ctx context.Context) (all []member, err error) {
	text, err := w.kogge(ctx, "fleet", "members", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &all)
	}
	return all, err
}

// vmOf is a VM of kogge vm fleet.
func (w *worker) vmOf(node string) (*qemu.VM, error) {
	return qemu.Attach(filepath.Join(w.cache, "vm", node))
}

// rest leaves the fleet alone for a while, and reads what each kind of node has used.
func (w *worker) rest(ctx context.Context, idle time.Duration) ([]row, error) {
	members, err := w.members(ctx)
	if err != nil {
		return nil, err
	}
	before, err := w.used(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(idle): // the measurement is of a fleet that is left alone
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	after, err := w.used(ctx)
	if err != nil {
		return nil, err
	}
	memory := []row{{What: fmt.Sprintf("member of etcd, idle for %v: memory", idle), Unit: "MiB", Goal: 120}, {What: fmt.Sprintf("follower, idle for %v: memory", idle), Unit: "MiB", Goal: 85}}
	disk := []row{{What: "member of etcd: written to its disk in an idle hour", Unit: "MiB", Goal: 20}, {What: "follower: written to its disk in an idle hour", Unit: "MiB", Goal: 1}}
	cpu := []row{{What: "member of etcd, idle: CPU of QEMU", Unit: "%"}, {What: "follower, idle: CPU of QEMU", Unit: "%"}}
	for i := range fleetNodes {
		node := fmt.Sprintf("n%d", i+1)
		kind := 0
		if !slices.ContainsFunc(members, func(m member) bool { return m.Node == node }) {
			kind = 1
		}
		a, z := before[i], after[i]
		memory[kind].Values = append(memory[kind].Values, z.memory)
		disk[kind].Values = append(disk[kind].Values, (z.written-a.written)*float64(time.Hour)/float64(idle))
		cpu[kind].Values = append(cpu[kind].Values, 100*(z.cpu-a.cpu)/idle.Seconds())
	}
	return slices.Concat(memory, disk, cpu), nil
}

// use is what a node has used: memory in MiB now, MiB written and CPU seconds since it was started.
type use struct{ memory, written, cpu float64 }

// used is what each node has used.
func (w *worker) used(ctx context.Context) (all []use, err error) {
	for i := range fleetNodes {
		node := fmt.Sprintf("n%d", i+1)
		var u use
		vm, err := w.vmOf(node)
		if err != nil {
			return nil, err
		}
		var disks []struct {
			Stats struct {
				Bytes int64 `json:"wr_bytes"`
			} `json:"stats"`
		}
		if err = vm.Monitor(ctx, "query-blockstats", nil, &disks); err == nil {
			u.cpu, err = vm.CPUSeconds()
		}
		_ = vm.Close()
		if err != nil {
			return nil, err
		}
		for _, d := range disks {
			u.written += float64(d.Stats.Bytes) / (1 << 20)
		}
		text, err := w.kogge(ctx, "node", "status", node, "--json")
		if err != nil {
			return nil, err
		}
		var status struct {
			Memory struct{ Total, Available string }
		}
		if err := json.Unmarshal([]byte(text), &status); err != nil {
			return nil, err
		}
		total, _ := strconv.ParseFloat(status.Memory.Total, 64)
		available, _ := strconv.ParseFloat(status.Memory.Available, 64)
		u.memory = (total - available) / (1 << 20)
		all = append(all, u)
	}
	return all, nil
}

// leaderLost cuts the power of the leader's VM, and boots it again.
func (w *worker) leaderLost(ctx context.Context) ([]row, error) {
	led := func(all []member) string {
		if i := slices.IndexFunc(all, func(m member) bool { return m.Role == "leader" }); i >= 0 {
			return all[i].Node
		}
		return ""
	}
	all, err := w.members(ctx)
	if err != nil {
		return nil, err
	}
	lost := led(all)
	if lost == "" {
		return nil, fmt.Errorf("nobody leads: %+v", all)
	}
	vm, err := w.vmOf(lost)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	err = vm.Kill()
	_ = vm.Close()
	if err != nil {
		return nil, err
	}
	until := func(is func([]member) bool) (float64, error) {
		for time.Since(began) < limit {
			if all, err := w.members(ctx); err == nil && is(all) {
				return time.Since(began).Seconds(), nil
			}
		}
		return 0, fmt.Errorf("not within %v after %s was killed", limit, lost)
	}
	another, err := until(func(all []member) bool { return led(all) != "" && led(all) != lost })
	if err != nil {
		return nil, err
	}
	began = time.Now()
	if _, err := w.kogge(ctx, "vm", "start", lost); err != nil {
		return nil, err
	}
	back, err := until(func(all []member) bool {
		var newest, own int64
		for _, m := range all {
			newest = max(newest, m.Revision)
			if m.Node == lost {
				own = m.Revision
			}
		}
		return own > 0 && own == newest
	})
	if err != nil {
		return nil, err
	}
	if _, err := w.kogge(ctx, "fleet", "status", "--wait", "3m"); err != nil {
		return nil, err
	}
	return []row{
		{What: "the leader's VM is killed: another one leads, as kogge fleet members sees it", Unit: "s", Values: []float64{another}},
		{What: "that VM is booted again: its etcd has what the others have", Unit: "s", Values: []float64{back}},
		{What: "and nothing is wrong in the fleet", Unit: "s", Values: []float64{time.Since(began).Seconds()}},
	}, nil
}
