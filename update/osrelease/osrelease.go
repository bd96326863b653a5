// Package osrelease is what a root file system says of its release to the programs in it.
//
// The image builder writes the file, PID 1 and the agent read it. It is for machines what
// /usr/lib/os-release is for people. Verity vouches for it like for every other file of
// the root; what a release says of itself before it is installed is update/release's.
package osrelease

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// File is where it lies on a node.
const File = "/usr/lib/kogge/release.json"

// Facts are its content.
type Facts struct {
	Version string    `json:"version"`
	Board   string    `json:"board"`
	Arch    string    `json:"arch"`
	Kernel  string    `json:"kernel"`
	Counter uint64    `json:"counter"` // of the release
	Time    time.Time `json:"time"`    // of the commit; no clock of a node goes below it

	// Unlocked are the Debian packages that the image has in newer versions than the lock
	// of its commit says: "NAME=VERSION:ARCH instead of NAME=VERSION:ARCH". WithoutSuites
	// are the suites of Debian that were left out when it was built. A release has
	// neither: its bytes follow from its commit.
	Unlocked      []string `json:"unlocked,omitempty"`
	WithoutSuites []string `json:"without_suites,omitempty"`
}

// Marks are the same in short, for the kernel command line: "" or
// "unlocked,without-trixie-security".
func (f Facts) Marks() string {
	var marks []string
	if len(f.Unlocked) > 0 {
		marks = append(marks, "unlocked")
	}
	for _, suite := range f.WithoutSuites {
		marks = append(marks, "without-"+suite)
	}
	return strings.Join(marks, ",")
}

// Text is the file. It ends up in images, which are the same bytes at each build.
func (f Facts) Text() ([]byte, error) {
	f.Time = f.Time.UTC()
	text, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("release facts: %w", err)
	}
	return append(text, '\n'), nil
}

// Read reads a file with them: [File], but for tests.
func Read(file string) (Facts, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Facts{}, err // it names the file
	}
	var f Facts
	if err := json.Unmarshal(text, &f); err != nil {
		return Facts{}, fmt.Errorf("%s: %w", file, err)
	}
	return f, nil
}
