package main

import (
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// hurry lets the heap grow before the collector runs: the start allocates a lot
// that stays, and collecting it costs the boot more than it frees.
func hurry() { debug.SetGCPercent(400) }

// rest is for when the start is over: collect as usual, and give the node what the
// start needed.
func rest() {
	debug.SetGCPercent(100)
	debug.FreeOSMemory()
}

// limitMemory makes the collector work harder as the process nears a part of the
// node's memory, within bounds in bytes. It is a soft limit; nothing fails at it.
func limitMemory(part, least, most int64) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return // without the limit the process is only less frugal
	}
	total := int64(info.Totalram) * int64(info.Unit)
	debug.SetMemoryLimit(min(max(total/part, least), most))
}
