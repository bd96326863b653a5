package memory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// maxFailures are remembered; the oldest make room.
const maxFailures = 32

// Failure is a release that was tried and did not stay.
type Failure struct {
	Release string    `json:"release"`          // its version
	Digest  string    `json:"digest,omitempty"` // its name
	Verdict Verdict   `json:"verdict"`
	Why     string    `json:"why"`
	Boots   int       `json:"boots"`         // tries of the last trial
	Arming  int       `json:"arming"`        // its number
	Times   int       `json:"times"`         // trials
	Last    time.Time `json:"last"`          // end of the last one
	Log     string    `json:"log,omitempty"` // its end
}

// String is "release 1.1 failed: agent not ready within 60s (3 boots)".
func (f Failure) String() string { return fmt.Sprintf("release %s %s", f.Release, f.Outcome()) }

// Outcome is that without the release: "crashed: reset by the watchdog (3 boots)".
func (f Failure) Outcome() string {
	return Conclusion{Stage: TrialOver, Verdict: f.Verdict, Why: f.Why, Boots: f.Boots}.String()
}

// Refused says whether the release is not to be installed or armed again until
// somebody forgets the failure. One that is unproven may be tried once more.
func (f Failure) Refused() bool { return f.Verdict != Unproven || f.Times > 1 }

// Failures is the memory, oldest first.
type Failures []Failure

type failuresFile struct {
	Version  int       `json:"version"`
	Failures []Failure `json:"failures"`
}

// parseFailures reads failures.json.
func parseFailures(text []byte) (Failures, error) {
	var file failuresFile
	if err := decode(failuresName, text, &file); err != nil {
		return nil, err
	}
	for _, f := range file.Failures {
		if !slices.Contains([]Verdict{Failed, Crashed, Unproven}, f.Verdict) {
			return nil, fmt.Errorf("%s: %w: verdict %q is unknown to this release", failuresName, errDamaged, f.Verdict)
		}
	}
	return file.Failures, nil
}

// Text is the content of failures.json.
func (fs Failures) Text() []byte {
	if fs == nil {
		fs = Failures{}
	}
	text, err := json.MarshalIndent(failuresFile{format, fs}, "", "\t")
	if err != nil {
		panic(err) // strings, numbers and times of years with four digits
	}
	return append(text, '\n')
}

// Find returns the failure of the release with that digest, or, where either has none,
// with that version.
func (fs Failures) Find(version, digest string) (Failure, bool) {
	i := fs.index(version, digest)
	if i < 0 {
		return Failure{}, false
	}
	return fs[i], true
}

func (fs Failures) index(version, digest string) int {
	return slices.IndexFunc(fs, func(f Failure) bool {
		if digest != "" && f.Digest != "" {
			return f.Digest == digest
		}
		return f.Release == version
	})
}

// Add remembers what became of a trial, at the end of the memory. The same trial, by the
// number of its arming, counts once: a power cut may have come before it was forgotten.
func (fs Failures) Add(t Trial, c Conclusion, when time.Time) Failures {
	f := Failure{
		Release: oneLine(t.Release), Digest: oneLine(t.Digest), Verdict: c.Verdict, Why: oneLine(c.Why), Boots: c.Boots, Arming: t.Number, Times: 1, Last: when.UTC().Truncate(time.Second), Log: c.Log,
	}
	if y := f.Last.Year(); y < 0 || y > 9999 { // JSON has no words for it
		f.Last = time.Time{}
	}
	fs = slices.Clone(fs)
	if i := fs.index(t.Release, t.Digest); i >= 0 {
		f.Times = fs[i].Times
		if fs[i].Arming != t.Number {
			f.Times++
		}
		fs = slices.Delete(fs, i, i+1)
	}
	fs = append(fs, f)
	return fs[max(0, len(fs)-maxFailures):]
}

// Forget takes the failures of a release away, by version or digest, and returns them.
func (fs Failures) Forget(name string) (left, gone Failures) {
	for _, f := range fs {
		if name != "" && (f.Release == name || f.Digest == name) {
			gone = append(gone, f)
		} else {
			left = append(left, f)
		}
	}
	return left, gone
}

// maxFailuresFile is above what Text writes, in bytes.
const maxFailuresFile = 1 << 20

// ReadFailures reads the memory; empty if there is none. Where the disk has made something
// else of it, what failed is forgotten: nobody could repair that by hand, and a node must
// not refuse every update over it.
func ReadFailures(m Folder) (Failures, error) {
	text, err := m.Read(failuresName)
	switch {
	case errors.Is(err, fs.ErrNotExist), decayed(err), len(text) > maxFailuresFile:
		return nil, nil
	case err != nil:
		return nil, err
	}
	failures, err := parseFailures(text)
	if errors.Is(err, errDamaged) {
		return nil, nil
	}
	return failures, err
}

// WriteFailures writes the memory, whole or not at all.
func WriteFailures(m Folder, failures Failures) error {
	return m.Replace(failuresName, failures.Text())
}
