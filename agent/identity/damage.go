package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// damage is what a node could not read of its own files. It serves all the same: who is to repair
// it has to reach it. What it does without is each file's matter, and always the safe side. A file
// stays as it is until another one takes its place, and beside that one even then.
type damage map[string]broken // by the name of the file

type broken struct {
	why    error
	unread bool // the disk did not give the file, which may be whole
}

// without says what follows from that, and what mends it.
var without = map[string]struct{ follows, mend string }{
	nodeKeyName:    {"this node shows a key made for this start, and is in no fleet", "kogge node adopt takes it in again, by a new join.yaml and with the seat that it has"},
	membershipName: {"this node is in no fleet", "kogge node adopt takes it in again, by a new join.yaml and with the seat that it has"},
	enrolmentName:  {"this node does not know how it came: without a seat or an acceptance it is new", "kogge fleet accept accepts it"},
	addedToldName:  {"callers may be let in that a member has called revoked", "an operator tells it which keys the fleet has revoked (kogge node adopt ADDRESS --all-revoked)"},
	toldName:       {"callers may be let in that a member has called revoked", "an operator tells it which keys the fleet has revoked (kogge node adopt ADDRESS --all-revoked)"},
	revokedName:    {"this node knows of operators the first one alone", "he tells it which keys the fleet has revoked, all of them (kogge node adopt ADDRESS --all-revoked)"},
	addedName:      {"this node knows of operators the first one alone", "he tells it which keys the fleet has revoked, all of them (kogge node adopt ADDRESS --all-revoked)"},
}

// newerMend mends what a later release has written, and nothing else does.
const newerMend = "start the release that has written it"

func (d damage) has(name string) bool { _, is := d[name]; return is }

// mayBeWhole says that nothing is to take the place of a file, as it may be whole: the disk did not give it,
// or a later release has written it.
func (d damage) mayBeWhole(name string) bool {
	return d[name].unread || errors.Is(d[name].why, document.ErrNewer)
}

// aside keeps a damaged file beside it, before another one takes its place, whether it can be read or
// not. One that a later release has written is whole: nothing takes its place.
func (d damage) aside(files keeping, name string) error {
	b, is := d[name]
	if !is {
		return nil
	}
	if errors.Is(b.why, document.ErrNewer) {
		return fmt.Errorf("%s: %w: nothing takes its place: %s", name, b.why, newerMend)
	}
	err := files.Keep(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Unread says that the disk did not give who the node is, and may give it to who opens it again. What
// else it does not give the node does without at once.
func (n *Node) Unread() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.damaged[nodeKeyName].unread || n.damaged[membershipName].unread
}

// Problem says which files of the node cannot be read, and what follows; nil: none.
func (n *Node) Problem() error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var all []error
	for _, name := range []string{nodeKeyName, membershipName, enrolmentName, revokedName, addedName, toldName, addedToldName} {
		if b, is := n.damaged[name]; is {
			mend := without[name].mend
			if errors.Is(b.why, document.ErrNewer) {
				mend = newerMend
			}
			err := fmt.Errorf("%s: %w: %s: %s", name, b.why, without[name].follows, mend)
			if b.unread {
				err = fmt.Errorf("%w; it may be whole: this node reads it again when it boots", err)
			}
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// Lost says that the node may have been in a fleet, and cannot show it any more.
func (n *Node) Lost() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.lost()
}

func (n *Node) lost() bool { return n.damaged.has(nodeKeyName) || n.damaged.has(membershipName) }

// Forgets says that keys may have been revoked of which the node does not know.
func (n *Node) Forgets() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.damaged.has(revokedName) || n.damaged.has(addedName)
}

var anyKey = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// keysIn are the keys that can still be read in a damaged list: they stay revoked.
func keysIn(raw []byte) (keys []string) {
	for _, key := range anyKey.FindAll(raw, maxRevoked) {
		if fleet.IsHash(string(key)) {
			keys = append(keys, string(key))
		}
	}
	return slices.Compact(keys)
}
