package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// record is vm.json: what another process has to know about a VM.
type record struct {
	Version  int       `json:"version"`
	Name     string    `json:"name"`
	Process  ident     `json:"process"`
	Started  time.Time `json:"started"`
	Forwards []Forward `json:"forwards"`
	Detached bool      `json:"detached"`
	Command  string    `json:"command"`
	// Images are what the overlays lie on, by disk; empty for a disk without one.
	Images []stamp `json:"images"`
	// Machine is what was started, with the ports that were chosen; nil in a folder of an older
	// program.
	Machine *Machine `json:"machine,omitempty"`
}

const recordVersion = 1

func writeRecord(dir string, r record) error {
	r.Version = recordVersion
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, vmFile), append(data, '\n'))
}

// readRecord reads vm.json of a VM's folder. A missing one wraps os.ErrNotExist.
func readRecord(dir string) (record, error) {
	path := filepath.Join(dir, vmFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return record{}, err
	}
	return parseRecord(path, data)
}

func parseRecord(path string, data []byte) (record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("%s: %w", path, err)
	}
	if r.Version != recordVersion {
		return record{}, fmt.Errorf("%s: version %d is not supported, only %d", path, r.Version, recordVersion)
	}
	return r, nil
}

// ident names a process for good: the kernel gives a number to another process
// one day, but never with the same start time in the same boot.
type ident struct {
	PID int `json:"pid"`
	// Start is when the process started, in clock ticks since the host's boot.
	Start uint64 `json:"start"`
	// Boot is the host's boot id.
	Boot string `json:"boot"`
}

// identify returns the identity of a process that exists.
func identify(pid int) ident {
	id := ident{PID: pid, Boot: bootID()}
	if st, err := readStat(pid); err == nil {
		id.Start = st.start
	}
	return id
}

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // missing: start times alone decide
	return strings.TrimSpace(string(id))
}

// alive says whether the process runs. A zombie does not, once all of its threads have ended:
// until then it holds its files and their locks.
func (id ident) alive() bool {
	if id.PID <= 0 || id.Boot != bootID() {
		return false
	}
	st, err := readStat(id.PID)
	switch {
	case err != nil || st.start != id.Start:
		return false
	case st.state == 'Z' || st.state == 'X':
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", id.PID)) // none: it has been reaped
		return len(threads) > 1
	}
	return true
}

// signal sends a signal to the process, never to one that got its number. A
// process that has ended is no error.
func (id ident) signal(sig syscall.Signal) error {
	// The handle is a pidfd: what alive finds after it was taken stays true of it.
	p, err := os.FindProcess(id.PID)
	if err != nil {
		return err
	}
	defer p.Release()
	if !id.alive() {
		return nil
	}
	if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// cpu is the user and system time of the process and its children.
func (id ident) cpu() (time.Duration, error) {
	st, err := readStat(id.PID)
	if err != nil {
		return 0, err
	}
	if !id.alive() {
		return 0, os.ErrProcessDone
	}
	// USER_HZ is 100 on every Linux that Go runs on.
	return time.Duration(st.ticks) * (time.Second / 100), nil
}

type stat struct {
	state byte
	ticks uint64 // utime, stime, cutime, cstime
	start uint64
}

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(data))
}

// parseStat reads a line of /proc/PID/stat.
//
// Source: proc(5). The command in field 2 may hold spaces and parentheses.
func parseStat(line string) (stat, error) {
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("process status %q: too few fields", line)
	}
	st := stat{state: fields[0][0]}
	for i := 11; i <= 14; i++ {
		n, err := strconv.ParseUint(fields[i], 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("process status: %w", err)
		}
		st.ticks += n
	}
	var err error
	if st.start, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return stat{}, fmt.Errorf("process status: %w", err)
	}
	return st, nil
}

// Info is what a VM's folder says about it.
type Info struct {
	// Name is the machine's, Dir its folder.
	Name, Dir string
	// Running says whether the process of PID is the one that was started.
	Running bool
	PID     int
	Started time.Time
	// Detached VMs outlive the process that started them.
	Detached bool
	Forwards []Forward
	// Command is the shell command that QEMU was started with.
	Command string
	// Err is why the folder could not be read, and then nothing else is set but
	// Name and Dir.
	Err error
}

// List returns the VMs whose folders lie in dir, by name, running or not. A dir
// that is missing holds none.
func List(dir string) ([]Info, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list VMs: %w", err)
	}
	var infos []Info
	for _, e := range entries {
		sub := filepath.Join(dir, e.Name())
		r, err := readRecord(sub)
		switch {
		case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
			continue // no VM's folder, or one that never started
		case err != nil:
			infos = append(infos, Info{Name: e.Name(), Dir: sub, Err: err})
			continue
		}
		infos = append(infos, Info{
			Name: r.Name, Dir: sub, Running: r.Process.alive(), PID: r.Process.PID, Started: r.Started,
			Detached: r.Detached, Forwards: r.Forwards, Command: r.Command,
		})
	}
	return infos, nil
}

// ErrNotRunning means that a folder's VM does not run.
var ErrNotRunning = errors.New("vm is not running")

// ErrForgotten means that a folder does not say how its VM was started.
var ErrForgotten = errors.New("its folder does not say how it was started")

// Again is the machine of a folder's VM as it was started last, with the same ports, to be
// started again with the disks that it has.
func Again(dir string) (Machine, error) {
	r, err := readRecord(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Machine{}, fmt.Errorf("vm %s: %w", filepath.Base(dir), ErrNoVM)
	case err != nil:
		return Machine{}, fmt.Errorf("vm %s: %w", filepath.Base(dir), err)
	case r.Process.alive():
		return Machine{}, fmt.Errorf("vm %s: %w (process %d)", r.Name, ErrRunning, r.Process.PID)
	case r.Machine == nil:
		return Machine{}, fmt.Errorf("vm %s: %w", r.Name, ErrForgotten)
	}
	m := *r.Machine
	m.Forwards, m.Fresh = r.Forwards, false
	return m, nil
}

// ErrNoVM means that a folder has never had a VM.
var ErrNoVM = errors.New("no such VM")

// Attach returns the running VM of a folder, whichever process started it. Its
// caller calls Close. An attached VM hears no events.
func Attach(dir string) (*VM, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	r, err := readRecord(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("attach to %s: %w", filepath.Base(dir), ErrNotRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	if !r.Process.alive() {
		return nil, fmt.Errorf("attach to %s: %w (process %d has ended)", r.Name, ErrNotRunning, r.Process.PID)
	}
	ctx, cancel := context.WithCancel(context.Background())
	v := &VM{
		Name: r.Name, Dir: dir, Forwards: r.Forwards, command: r.Command, ident: r.Process, cancel: cancel,
		done: make(chan struct{}), more: make(chan struct{}), faulted: make(chan struct{}),
	}
	v.running.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for v.ident.alive() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		close(v.done)
	})
	return v, nil
}

// Remove deletes the folder of a VM that does not run, with its overlays and logs.
// A folder that holds no VM is left alone.
func Remove(dir string) error {
	r, err := readRecord(dir)
	if err != nil {
		return fmt.Errorf("remove vm: %w", err)
	}
	unlock, err := lockFolder(dir)
	if err != nil {
		return fmt.Errorf("remove vm %s: %w", r.Name, err)
	}
	defer unlock()
	if r.Process.alive() {
		return fmt.Errorf("remove vm %s: %w (process %d)", r.Name, ErrRunning, r.Process.PID)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove vm %s: %w", r.Name, err)
	}
	return nil
}
