package decision

import (
	"fmt"
	"strings"
	"time"

	"kogge.example/update/fleet/document"
)

// Vote is how a node votes on what is valid, in words "auto", "after 48h0m0s", "ask" or "never". It is
// the node's own: its seed sets it, or its owner's signature, and no decision changes it.
type Vote struct {
	Way   Way
	After document.Duration // of [After]: the node's running time since it has seen the proposal
}

// Way is a way to vote.
type Way string

// The ways.
const (
	Auto  Way = "auto"  // at once
	After Way = "after" // when a time is over, or its owner has said yes
	Ask   Way = "ask"   // when its owner has said yes
	Never Way = "never" // not at all
)

// maxAfter is how long a node waits, at most.
const maxAfter = document.Duration(365 * 24 * time.Hour)

func (v Vote) String() string {
	if v.Way == After {
		return string(After) + " " + v.After.String()
	}
	return string(v.Way)
}

// MarshalText writes the vote as it stands in a document.
func (v Vote) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a vote: what MarshalText writes, with a time in any of Go's spellings.
func (v *Vote) UnmarshalText(text []byte) error {
	way, time, _ := strings.Cut(string(text), " ")
	parsed := Vote{Way: Way(way)}
	switch parsed.Way {
	case Auto, Ask, Never:
		if string(text) != way {
			return fmt.Errorf("%.40q: nothing stands behind %s", text, way)
		}
	case After:
		if err := parsed.After.UnmarshalText([]byte(time)); err != nil {
			return err
		}
		if parsed.After < 1 || parsed.After > maxAfter {
			return fmt.Errorf("%.40q: more than nothing, and %s at most", text, maxAfter)
		}
	default:
		return fmt.Errorf("%.40q is no way to vote: auto, after 48h, ask or never", text)
	}
	*v = parsed
	return nil
}
