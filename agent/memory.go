package main

import (
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// roomy is the memory from which on a start may be wasteful, in bytes. Below it every
// page of garbage pushes out one of the programs, which are then read again and again.
const roomy = 224 << 20

// hurry lets the heap grow before the collector runs: the start allocates a lot
// that stays, and collecting it costs the boot more than it frees.
func hurry() {
	if totalMemory() < roomy {
		debug.SetGCPercent(frugal)
		return
	}
	debug.SetGCPercent(400)
}

// frugal is how much garbage a node with little memory keeps, in percent of what is
// in use.
const frugal = 40

// idle is how much garbage a node with memory to spare keeps, in percent of what is in use.
const idle = 60

// settled is how long after its start a process with memory to spare goes on to hurry: by
// then the first container answers, which a collection would hold up.
const settled = 20 * time.Second

// rest is for when the start is over: collect as usual, and give the node what the
// start needed.
func rest() { restWith(totalMemory()) }

func restWith(memory int64) {
	if memory < roomy {
		debug.FreeOSMemory()
		return
	}
	time.AfterFunc(settled, func() {
		debug.SetGCPercent(idle)
		debug.FreeOSMemory()
	})
}

// limitMemory makes the collector work harder as the process nears a part of the
// node's memory, within bounds in bytes. It is a soft limit; nothing fails at it.
func limitMemory(part, least, most int64) {
	if total := totalMemory(); total > 0 { // without the limit the process is only less frugal
		debug.SetMemoryLimit(min(max(total/part, least), most))
	}
}

// totalMemory is that of the node in bytes, less what the kernel took at its start;
// 0 where it is not known.
func totalMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}
