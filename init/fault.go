//go:build faults

package main

import (
	"fmt"
	"os"
	"time"

	"kogge.example/init/guard"
	"kogge.example/update/cmdline"
)

// faults are what kogge.fault=NAME on the kernel command line breaks, by the moment
// of the boot at which it does. Tests show with them that a node gets rid of a release
// that is broken like this. They exist only under the build tag faults; a release
// has none of it.
//
// Those that only the agent carries out are in agent/fault.go.
var faults = map[string]map[string]func(){
	"stage 0": {
		"stage0-hangs": func() {
			for {
				time.Sleep(time.Hour) // nobody feeds the watchdog
			}
		},
	},
	// Before the services, while hardware is looked for.
	"drivers": {"drivers-panic": func() { sysrq("c") }},
	"services": {
		"kernel-panic": func() { sysrq("c") },
		// Without the restart after a panic only the watchdog is left.
		"kernel-hang": func() {
			broken("/proc/sys/kernel/panic", "0")
			sysrq("c")
		},
		"init-dies":  func() { os.Exit(3) },
		"init-hangs": func() { broken("/sys/fs/cgroup/init/cgroup.freeze", "1") },
		// No container can start a second thread.
		"workload-sick": func() { broken("/sys/fs/cgroup/workload/pids.max", "1") },
	},
}

// fault breaks what the kernel command line names, if its moment is this one.
func fault(moment string) {
	words, err := cmdline.Read(cmdline.File)
	if err != nil {
		guard.Kmsg("fault: " + err.Error())
		return
	}
	if do := faults[moment][words.Fault]; do != nil {
		guard.Kmsg(fmt.Sprintf("fault %s: this image is for tests", words.Fault))
		do()
	}
}

// sysrq asks the kernel for one of its keys.
func sysrq(key string) { broken("/proc/sysrq-trigger", key) }

// broken writes a setting. A fault that does not happen has to be seen.
func broken(file, value string) {
	if err := os.WriteFile(file, []byte(value), 0o200); err != nil {
		guard.Kmsg("fault did not happen: " + err.Error())
	}
}
