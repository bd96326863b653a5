package clock

import (
	"strings"
	"testing"
	"time"
)

// TestLone goes through polls of several servers: one that is dead for ever keeps nobody
// from the time, one that misses an answer does not hand the clock to the other.
func TestLone(t *testing.T) {
	const d = 30 * 24 * time.Hour
	at := func(server string, offset time.Duration) Sample {
		return Sample{Server: server, Offset: offset, Error: 20 * time.Millisecond}
	}
	a, b, liar := at("a", 0), at("b", time.Millisecond), at("liar", d)
	a1, a2 := at("192.0.2.1", d), at("fd77::1", d)
	a1.Clock, a2.Clock = Reference{7, 12345}, Reference{7, 12345}
	other := at("other", 0)
	other.Clock = Reference{9, 54321}
	for _, c := range []struct {
		name       string
		configured int
		polls      [][]Sample
		want       string // of each poll: . nothing, s believed alone, S believed
	}{
		{"one configured", 1, [][]Sample{{a}, {}, {a}}, "s.s"},
		{"two that agree", 2, [][]Sample{{a, b}, {a, b}}, "SS"},
		{"one of two is dead", 2, [][]Sample{{a}, {a}, {a}, {a}}, "..ss"},
		{"two of three are dead", 3, [][]Sample{{a}, {a}, {a}, {a}}, "..ss"},
		{"it misses polls itself", 2, [][]Sample{{a}, {}, {a}, {}, {a}, {}, {a}}, "....s.s"},
		{"the other returns", 2, [][]Sample{{a}, {a}, {a}, {a, b}, {a}, {a}, {a}}, "..sS..s"},
		{"the other returns and disagrees", 2, [][]Sample{{liar}, {liar}, {liar}, {a, liar}, {liar}, {liar}}, "..s..."},
		{"an honest one that misses every second poll", 2, [][]Sample{{liar}, {a, liar}, {liar}, {a, liar}, {liar}, {a, liar}}, "......"},
		{"each is missing in turn", 2, [][]Sample{{liar}, {a}, {liar}, {a}, {liar}, {a}, {liar}}, "......."},
		{"two that disagree", 2, [][]Sample{{a, liar}, {a, liar}, {a, liar}, {a, liar}}, "...."},
		{"one server by two addresses", 2, [][]Sample{{a1, a2}, {a1, a2}}, "ss"},
		{"one server by two addresses, of three", 3, [][]Sample{{a1, a2}, {a1, a2}, {a1, a2}, {a1}, {a2}}, "..ss."},
		{"one server by two addresses against another", 3, [][]Sample{{a1, a2, other}, {a1, a2, other}, {a1, a2, other}}, "..."},
		{"one server by two addresses against two", 4, [][]Sample{{a1, a2, other, a}, {a1, a2, other, a}}, "SS"},
	} {
		now := truth
		s, got := State{Floor: NewFloor(saved, image)}, ""
		for _, samples := range c.polls {
			next, action := s.Step(now, c.configured, samples)
			s = next
			single := strings.HasSuffix(action.Source, "(single source)")
			switch {
			case action.Verb == Nothing:
				got += "."
				if action.Why == "" && len(samples) > 0 {
					t.Errorf("%s: nothing is done, and not said why", c.name)
				}
			case single != s.Single:
				t.Errorf("%s: source %s, single %v", c.name, action.Source, s.Single)
			case single:
				got += "s"
			default:
				got += "S"
			}
			now = now.Add(time.Minute)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	// Alone, a server can do what the only one that is configured can, and no more.
	for name, offset := range map[string]time.Duration{"before the image": image.AddDate(-1, 0, 0).Sub(truth), "over ten years ahead": 11 * 365 * 24 * time.Hour} {
		x := at("x", offset)
		_, want := State{Floor: NewFloor(saved, image)}.Step(truth, 1, []Sample{x})
		s := State{Floor: NewFloor(saved, image)}
		var got Action
		for range 3 {
			s, got = s.Step(truth, 2, []Sample{x})
		}
		if got != want || got.Save && got.Verb != Refuse {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
