// Package cmdline is what a release and its boot loader tell the node on the kernel
// command line: the words that begin with "kogge.".
//
// The image builder and boot loaders write them, stage 0, PID 1 and the agent read them,
// and whoever inspects an image does. The kernel's own words are left alone.
package cmdline

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"kogge.example/update/gpt"
	"kogge.example/update/verity"
)

// File is where the kernel shows the line that it was started with.
const File = "/proc/cmdline"

// Words are ours among those of a kernel command line. A zero field is a word that is
// not there. Trial and BootPart are never in a release: they say how it was started.
type Words struct {
	Board   string        // kogge.board
	Version string        // kogge.version: the release, as people name it
	Verity  verity.Params // kogge.verity: root hash, salt, blocks of the root file system
	// Trial is kogge.trial=1, from boot loaders that cannot say it otherwise.
	Trial bool
	// BootPart is the boot partition that the kernel is from (kogge.bootpart); zero from
	// loaders that cannot say it or say it otherwise.
	BootPart gpt.GUID
	// Fault is what a release for tests breaks (kogge.fault). A release has none.
	Fault string
	// Marks is kogge.marks: in which ways an image is not what its commit and its lock
	// say, separated by commas. A release has none. See osrelease.Facts.
	Marks string
}

// ErrNoRoot says that the line names no root file system. It is of no release of ours,
// or damaged.
var ErrNoRoot = errors.New("kogge.verity is missing: the boot entry is damaged or not ours")

// Parse takes our words out of a kernel command line. As everywhere in the kernel, the
// last word of a kind counts. Without a root hash there is nothing to boot, so that is
// an error, and it wraps ErrNoRoot.
func Parse(line string) (Words, error) {
	var w Words
	hash := ""
	for _, word := range strings.Fields(line) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "kogge.board":
			w.Board = value
		case "kogge.version":
			w.Version = value
		case "kogge.verity":
			hash = value
		case "kogge.trial":
			w.Trial = value == "1"
		case "kogge.bootpart":
			// One that makes no sense is as good as none: any one disk will do then.
			w.BootPart, _ = gpt.ParseGUID(value)
		case "kogge.fault":
			w.Fault = value
		case "kogge.marks":
			w.Marks = value
		}
	}
	if hash == "" {
		return Words{}, fmt.Errorf("kernel command line: %w", ErrNoRoot)
	}
	var err error
	if w.Verity, err = verity.ParseParams(hash); err != nil {
		return Words{}, fmt.Errorf("kernel command line: kogge.verity: %w", err)
	}
	return w, nil
}

// Read parses a file with a kernel command line: [File], but for tests.
func Read(file string) (Words, error) {
	line, err := os.ReadFile(file)
	if err != nil {
		return Words{}, fmt.Errorf("kernel command line: %w", err)
	}
	return Parse(string(line))
}

// String is the words as they stand on a command line, those that are there, in this
// order. It ends up in images, which are the same bytes at each build.
func (w Words) String() string {
	var words []string
	add := func(key, value string) {
		if value != "" {
			words = append(words, "kogge."+key+"="+value)
		}
	}
	add("board", w.Board)
	add("version", w.Version)
	if w.Verity != (verity.Params{}) {
		add("verity", w.Verity.String())
	}
	if w.Trial {
		add("trial", "1")
	}
	if w.BootPart != (gpt.GUID{}) {
		add("bootpart", w.BootPart.String())
	}
	add("fault", w.Fault)
	add("marks", w.Marks)
	return strings.Join(words, " ")
}
