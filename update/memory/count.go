package memory

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"kogge.example/update/bootloader"
)

// CountFile is the count of boots without a good assessment, on the boot partition:
// it has to be there also when STATE is what a boot fails at. countSize is its size
// in bytes, one sector, so that a power cut leaves the old text or the new one.
const (
	CountFile = "kogge/boots.rec"
	countSize = 512
)

// Count counts the boots of a proven slot.
type Count struct {
	// Slot is the one that is counted.
	Slot bootloader.Slot
	// Bad boots in a row had no good assessment; the present one counts until it has.
	Bad int
	// Armed is the slot that was armed because of them, Number its arming, Release what
	// lay in it, and At the time by the node's clock. Armed is "" if that never happened.
	Armed   bootloader.Slot
	Number  int
	Release string
	At      time.Time
}

const countHead = "kogge boots 1\n"

// Text is the record as it lies on the boot partition: text for people, then spaces.
func (r Count) Text() []byte {
	var b bytes.Buffer
	b.WriteString(countHead)
	fmt.Fprintf(&b, "slot %s\nbad %d\n", r.Slot, r.Bad)
	if r.Armed != "" {
		fmt.Fprintf(&b, "armed %s %d %d %s\n", r.Armed, r.Number, r.At.Unix(), r.Release)
	}
	fmt.Fprintf(&b, "sum %08x\n", crc32.ChecksumIEEE(b.Bytes()))
	for b.Len() < countSize-1 {
		b.WriteByte(' ')
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// ParseCount reads a record. Anything but one whole record is an error, and counts as
// none: a damaged count must not switch slots.
func ParseCount(text []byte) (Count, error) {
	var r Count
	if len(text) != countSize || !strings.HasPrefix(string(text), countHead) {
		return Count{}, fmt.Errorf("%s is not a record that this release can read", CountFile)
	}
	at := bytes.LastIndex(text, []byte("\nsum ")) + 1
	sum, _, _ := strings.Cut(string(text[at:]), "\n")
	if at == 0 || sum != fmt.Sprintf("sum %08x", crc32.ChecksumIEEE(text[:at])) {
		return Count{}, fmt.Errorf("%s is damaged", CountFile)
	}
	for line := range strings.Lines(string(text[len(countHead):at])) {
		f := strings.Fields(line)
		ok := false
		switch {
		case len(f) == 2 && f[0] == "slot":
			r.Slot = bootloader.Slot(f[1])
			ok = r.Slot == "A" || r.Slot == "B"
		case len(f) == 2 && f[0] == "bad":
			ok = number(f[1], &r.Bad) && r.Bad <= topBad
		case len(f) == 5 && f[0] == "armed":
			r.Armed, r.Release = bootloader.Slot(f[1]), f[4]
			var seconds int64
			ok = (r.Armed == "A" || r.Armed == "B") && number(f[2], &r.Number) && number(f[3], &seconds) && bootloader.CheckVersion(r.Release) == nil
			r.At = time.Unix(seconds, 0).UTC()
		}
		if !ok {
			return Count{}, fmt.Errorf("%s: %q is not understood", CountFile, strings.TrimSuffix(line, "\n"))
		}
	}
	if !bytes.Equal(r.Text(), text) {
		return Count{}, fmt.Errorf("%s is not in the form that this release writes", CountFile)
	}
	return r, nil
}

// number reads a number that is not below 0.
func number[N int | int64](text string, into *N) bool {
	n, err := strconv.ParseInt(text, 10, 48)
	*into = N(n)
	return err == nil && n >= 0 && int64(*into) == n
}

const (
	// maxBad boots in a row without a good assessment are too many.
	maxBad = 3
	// rest is how long nothing is armed after that was done once, if the boots do not
	// double before.
	rest = 24 * time.Hour
	// topBad is where the count ends.
	topBad = 1 << 20
)

// Begin counts one more boot of the slot.
func (r Count) Begin(slot bootloader.Slot) Count {
	if r.Slot != slot {
		r.Slot, r.Bad = slot, 0
	}
	r.Bad = min(r.Bad+1, topBad)
	return r
}

// Excuse takes the present boot out of the count: it was ended in order before it
// could be assessed.
func (r Count) Excuse() Count {
	r.Bad = max(r.Bad-1, 0)
	return r
}

// Clear is the record after a good assessment.
func (r Count) Clear() Count {
	r.Bad = 0
	return r
}

// Move notes that the slot to, with that entry, was armed.
func (r Count) Move(to bootloader.Slot, armed bootloader.Entry, now time.Time) Count {
	r.Armed, r.Number, r.Release, r.At = to, armed.Number, armed.Version, now.UTC().Truncate(time.Second)
	if r.At.Unix() < 0 {
		r.At = time.Unix(0, 0).UTC()
	}
	return r
}

// Holds says whether an entry is still what was armed. A number alone does not say so: the
// loader gives that of a slot that was retired once more.
func (r Count) Holds(e bootloader.Entry) bool {
	return e.Present && r.Number == e.Number && r.Release == e.Version
}

// Dated is the record with a time of the last arming that the clock can have had: one
// behind now, or before since, was taken from a clock that was wrong, and the day begins
// anew.
func (r Count) Dated(since, now time.Time) Count {
	if r.Armed != "" && (r.At.After(now) || r.At.Before(since)) {
		r.At = now.UTC().Truncate(time.Second)
	}
	return r
}

// Fallback says whether the other slot is to be tried now, because the running one, a
// proven slot, had its third boot in a row without a good assessment. Why is empty
// while there is nothing to say.
//
// After one try the next comes a day later, or when the bad boots have doubled since: a try
// may end by bad luck, and a machine without a clock that never comes as far as the network
// sees no day go by. A clock that stands before the last time proves no day.
func (r Count) Fallback(state bootloader.State, now time.Time) (other bootloader.Slot, why string) {
	if r.Bad < maxBad || r.Slot == "" {
		return "", ""
	}
	other = r.Slot.Other()
	entry := state.Of(other)
	count := fmt.Sprintf("slot %s had %d boots in a row without a good assessment", r.Slot, r.Bad)
	proven := entry.Present && (!entry.Counted || r.Armed == other && r.Holds(entry))
	switch {
	case !entry.Present:
		return "", fmt.Sprintf("%s, and slot %s is empty", count, other)
	case !proven:
		return "", fmt.Sprintf("%s, and slot %s never proved itself", count, other)
	case r.Armed == other && now.Sub(r.At) < rest && !r.doubled():
		return "", fmt.Sprintf("%s, and slot %s was tried at %s: it is tried again a day later, or at boot %d of these",
			count, other, r.At.Format(time.RFC3339), r.nextTry())
	}
	return other, count
}

// doubled says whether the bad boots are the first too many, twice, four times, …
func (r Count) doubled() bool { return r.Bad > maxBad && Count{Bad: r.Bad - 1}.nextTry() == r.Bad }

// nextTry is the number of bad boots at which a slot that was tried is tried again.
func (r Count) nextTry() int {
	next := 2 * maxBad
	for next <= r.Bad {
		next *= 2
	}
	return next
}
