package sim

import (
	"flag"
	"os"
	"testing"
)

var (
	seedFlag = flag.Int64("seed", -1, "the seed of one run, with a line for each event")
	nFlag    = flag.Int("n", 4, "how many seats that run has")
)

// TestSeed runs one seed with its trace: go test ./update/fleet/sim -run 'TestSeed$' -v -args -n 4 -seed 28
func TestSeed(t *testing.T) {
	if *seedFlag < 0 {
		t.Skip("-args -n N -seed SEED names the run")
	}
	p := Drawn(*nFlag, uint64(*seedFlag))
	p.Trace = os.Stdout
	t.Logf("%+v", p)
	var all Tally
	r := Run(t, p)
	all.Add(r)
	t.Log(all)
	for _, w := range r.Wrong {
		t.Errorf("%s: %s", w.What, w.How)
	}
}

// TestSeeds runs some.
func TestSeeds(t *testing.T) {
	var all Tally
	for seed := range uint64(60) {
		n := 1 + int(seed%10)
		r := Run(t, Drawn(n, seed))
		all.Add(r)
		for _, w := range r.Wrong {
			t.Errorf("n %d, seed %d, %s: %s: %s", n, seed, r.Lie, w.What, w.How)
		}
	}
	t.Log(all)
}
