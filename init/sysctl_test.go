package main

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestSetSysctls writes all that it can into a tree like /proc/sys, and names what
// is not there.
func TestSetSysctls(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"fs", "fs/inotify", "kernel/pty", "net/ipv4", "vm"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := setSysctls(root); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"fs/protected_symlinks": "1", "kernel/kptr_restrict": "1",
		"kernel/printk": "3",
		// No container uses up what is counted for all.
		"fs/file-max": strconv.Itoa(math.MaxInt), "fs/aio-max-nr": "2147483647",
		"fs/inotify/max_user_instances": "2147483647", "fs/inotify/max_user_watches": "2147483647",
	} {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"tcp_mem", "udp_mem"} {
		memory, _ := machineSize("")
		if got, err := os.ReadFile(filepath.Join(root, "net/ipv4", name)); err != nil || string(got) != socketMemory(memory, int64(os.Getpagesize())) {
			t.Errorf("memory of sockets: %q, %v", got, err)
		}
	}
	// A kernel without some of them: the others are set, and the error says which.
	root = t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "fs"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := setSysctls(root)
	if err == nil || !strings.Contains(err.Error(), "kernel/dmesg_restrict") {
		t.Errorf("error %v does not name kernel/dmesg_restrict", err)
	}
	if _, err := fs.Stat(os.DirFS(root), "fs/protected_fifos"); err != nil {
		t.Error(err)
	}
}

// TestMachineSize: the smaller of the kernel's two numbers of tasks counts, and one that
// it does not tell sets no bound.
func TestMachineSize(t *testing.T) {
	for _, c := range []struct {
		threads, pids string
		want          int64
	}{{"32768\n", "4194304\n", 32768}, {"32768\n", "16384\n", 16384}, {"1720", "many", 0}, {"", "32768", 0}} {
		folder := t.TempDir()
		for name, text := range map[string]string{"threads-max": c.threads, "pid_max": c.pids} {
			if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if memory, tasks := machineSize(folder); tasks != c.want || memory <= 0 {
			t.Errorf("%q, %q: %d tasks, %d bytes; want %d", c.threads, c.pids, tasks, memory, c.want)
		}
	}
	if _, tasks := machineSize(t.TempDir()); tasks != 0 {
		t.Errorf("%d tasks of no kernel", tasks)
	}
}

// TestServicesOutliveContainers: when memory runs out, no service of the node goes before
// a container.
func TestServicesOutliveContainers(t *testing.T) {
	for _, s := range (&node{}).services() {
		if s.OOMScoreAdj > -900 {
			t.Errorf("service %s has OOM score %d", s.Name, s.OOMScoreAdj)
		}
	}
}

// TestSocketMemory: of what sockets may hold, the node's reserve is no part.
func TestSocketMemory(t *testing.T) {
	for memory, want := range map[int64]string{
		215 << 20:  "15888 31776 31776",    // of 55040 pages
		1000 << 20: "103808 207616 207616", // of 256000
		64 << 30:   "8323072 16646144 16646144",
	} {
		if got := socketMemory(memory, 4096); got != want {
			t.Errorf("%d MiB: %s, want %s", memory>>20, got, want)
		}
	}
}

// TestTerminals: what waits in all of those that containers have is a small part of memory.
func TestTerminals(t *testing.T) {
	for memory, want := range map[int64]int64{128 << 20: 1152, 256 << 20: 1152, 512 << 20: 1280, 1 << 30: 1536, 6 << 30: 4096, 64 << 30: 4096} {
		if got := terminals(memory); got != want {
			t.Errorf("%d MiB: %d, want %d", memory>>20, got, want)
		}
	}
}
