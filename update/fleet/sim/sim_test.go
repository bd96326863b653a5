package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag    = flag.Int64("seed", -1, "one run, with a line for each event")
	nFlag       = flag.Int("n", 4, "how many seats that run has")
	partFlag    = flag.Int("part", 0, "a part of make sim, 1 to 3")
	hostileFlag = flag.String("hostile", "", "so many seats in a hundred lie: 34..40; with -seed one number")
	lieFlag     = flag.String("lie", "", "how they lie with -hostile; none: in each of the ways, one after the other")
	scaleFlag   = flag.Float64("scale", 1, "the share of a part's seeds that is run")
)

// row is so many seeds of fleets of some sizes.
type row struct {
	sizes []int
	seeds int
}

// parts are what make sim runs.
var parts = [][]row{
	{{[]int{1, 2, 3, 4, 4, 4, 5, 6, 7, 7, 7, 8, 9, 10, 10}, 9000}},
	{{[]int{31}, 800}, {[]int{100}, 180}},
	{{[]int{1000}, 20}},
}

// quick is what every test run runs.
var quick = []row{{parts[0][0].sizes, 196}, {[]int{31}, 4}}

// TestSimulation runs fleets by seed. Without arguments it is 200 of them; make sim has more, in parts.
func TestSimulation(t *testing.T) {
	switch {
	case *seedFlag >= 0:
		one(t)
	case *hostileFlag != "":
		t.Log(hostile(t, *hostileFlag))
	case *partFlag > 0 && *partFlag <= len(parts):
		simulate(t, parts[*partFlag-1], *scaleFlag)
		if *partFlag == len(parts) {
			n := parts[*partFlag-1][0].sizes[0]
			took, cpu := figure(t, n)
			t.Logf("%d voters, links of 50 ms, each verifies all signatures: decided everywhere %s after the proposal (goal 10 s), %s of processor time each (goal 300 ms)", n, took, cpu.Round(time.Millisecond))
			if took > 10*time.Second || cpu > 300*time.Millisecond {
				t.Errorf("that misses its goal")
			}
		}
	case *partFlag != 0:
		t.Fatalf("-part %d: 1 to %d", *partFlag, len(parts))
	default:
		simulate(t, quick, 1)
	}
}

// one runs one seed and tells all.
func one(t *testing.T) {
	p := Drawn(*nFlag, uint64(*seedFlag))
	if *hostileFlag != "" {
		var percent int
		if _, err := fmt.Sscanf(*hostileFlag, "%d", &percent); err != nil {
			t.Fatalf("-hostile %s: %v", *hostileFlag, err)
		}
		p = Against(*nFlag, uint64(*seedFlag), Lie(*lieFlag), percent)
	}
	t.Logf("%+v", p)
	p.Trace = os.Stdout
	var all Tally
	r := Run(t, p)
	all.Add(r)
	t.Log(all)
	for _, w := range r.Wrong {
		t.Errorf("%s: %s", w.What, w.How)
	}
}

// simulate runs rows of seeds, and wants nothing to be wrong.
func simulate(t *testing.T, rows []row, scale float64) {
	for _, r := range rows {
		start := time.Now()
		seeds := max(1, int(float64(r.seeds)*scale))
		all := run(t, seeds, func(i int) Plan { return Drawn(r.sizes[i%len(r.sizes)], uint64(i)) })
		t.Logf("N %s: %s\n  %s", sizes(r.sizes), all, time.Since(start).Round(time.Second))
		for _, bad := range all.Wrong {
			tell(t, bad)
		}
		if all.Runs+all.Idle < seeds {
			t.Errorf("of %d seeds %d were run", seeds, all.Runs+all.Idle)
		}
	}
}

func sizes(all []int) string {
	if low, high := slices.Min(all), slices.Max(all); low != high {
		return fmt.Sprintf("%d to %d", low, high)
	}
	return fmt.Sprint(all[0])
}

// tell says what went wrong with a run, and how to see it again.
func tell(t *testing.T, r Result) {
	for i, w := range r.Wrong {
		if i > 2 {
			t.Errorf("  and %d more", len(r.Wrong)-i)
			break
		}
		t.Errorf("N %d, seed %d, %d that lie (%s): %s: %s", r.N, r.Seed, r.Liars, r.Lie, w.What, w.How)
	}
	t.Errorf("  again: go test ./update/fleet/sim -run Simulation -v -args -n %d -seed %d", r.N, r.Seed)
}

// run runs plans on all processors, and says every half minute how far it is.
func run(t *testing.T, n int, plan func(i int) Plan) Tally {
	results := make([]*Result, n)
	var all Tally
	var mu sync.Mutex // guards next, done and told
	next, done, start, told := 0, 0, time.Now(), time.Now()
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= n {
					return
				}
				r := Run(t, plan(i))
				mu.Lock()
				results[i] = &r
				if done++; time.Since(told) > 30*time.Second {
					told = time.Now()
					fmt.Fprintf(os.Stderr, "sim: %d of %d seeds, N %d, %s\n", done, n, r.N, time.Since(start).Round(time.Second))
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	for _, r := range results {
		if r != nil {
			all.Add(*r)
		}
	}
	return all
}

// hostile has more lie than a fleet bears, and makes the table of what then breaks, and by which seed first.
func hostile(t *testing.T, percents string) string {
	var low, high int
	if n, err := fmt.Sscanf(percents, "%d..%d", &low, &high); n == 1 {
		high = low
	} else if err != nil {
		t.Fatalf("-hostile %s: %v", percents, err)
	}
	const seeds = 40
	ns := []int{4, 7, 10, 4, 7, 10, 4, 7, 10, 31}
	var b strings.Builder
	fmt.Fprintf(&b, "%d to %d %% lie, N 4 to 31: the first of %d seeds that breaks it, as N/liars/seed\n%-14s", low, high, seeds, "")
	columns := []What{TwoDecisions, SignedTwice, SentFirst, Stuck, Forged, Damaged, Undetected}
	for _, what := range columns {
		fmt.Fprintf(&b, "%20s", what)
	}
	for _, lie := range Lies {
		if *lieFlag != "" && Lie(*lieFlag) != lie {
			continue
		}
		first := make(map[What]string)
		plans := []Plan{}
		for seed := range seeds {
			plans = append(plans, Against(ns[seed%len(ns)], uint64(seed), lie, low+seed*7/len(ns)%(high-low+1)))
		}
		all := run(t, len(plans), func(i int) Plan { return plans[i] })
		for _, r := range all.Wrong {
			for _, w := range r.Wrong {
				if first[w.What] == "" {
					first[w.What] = fmt.Sprintf("%d/%d/%d", r.N, r.Liars, r.Seed)
				}
				if w.What != TwoDecisions && w.What != Stuck {
					t.Errorf("N %d, seed %d, %d that lie (%s): %s: %s", r.N, r.Seed, r.Liars, r.Lie, w.What, w.How)
				}
			}
		}
		line := fmt.Sprintf("%-14s", lie)
		for _, what := range columns {
			if first[what] == "" {
				first[what] = "–"
			}
			line += fmt.Sprintf("%20s", first[what])
		}
		fmt.Fprintf(os.Stderr, "sim: %s\n", line)
		b.WriteString("\n" + line)
	}
	return b.String()
}
