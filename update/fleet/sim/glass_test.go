package sim

import "testing"

// TestGlass destroys machines of fleets of three to seven: where a quorum is gone, those that are left take
// the owner's roster and go on; where one lives, nobody takes it.
func TestGlass(t *testing.T) {
	taken, refused := 0, 0
	for seed := range uint64(20) {
		p := Drawn(3+int(seed%5), seed)
		p.Liars, p.Seats, p.Brief = 0, false, false
		p.Destroyed = p.N - founded(t, p.N, false).at.Quorum + int(seed%2)
		r := Run(t, p)
		for _, w := range r.Wrong {
			t.Errorf("N %d, seed %d, %d destroyed: %s: %s", p.N, seed, p.Destroyed, w.What, w.How)
		}
		if want := int(seed % 2); r.Kinds["break-glass"] != want {
			t.Errorf("N %d, seed %d, %d destroyed: the glass is broken %d times: %v", p.N, seed, p.Destroyed, r.Kinds["break-glass"], r.Kinds)
		}
		if seed%2 == 1 {
			taken++
		} else {
			refused++
		}
	}
	t.Logf("%d times the glass was broken, %d times not", taken, refused)
}
