package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kogge.example/boards"
	"kogge.example/update/bootloader"
	"kogge.example/update/golden"
)

// matrixBoards have a boot matrix. Where a fault is to be tried once, an earlier board
// is preferred to a later one with the same boot loader.
var matrixBoards = []string{"qemu-x86_64", "qemu-arm64", "qemu-arm64-uboot"}

// cell is one line of a boot matrix: see testdata/matrix.
type cell struct {
	board, fault, how string
	slot              string // that the node ends in; "A-bad": it stays there, and says that it is not well
	boots             int
	why               string
	// once has the cell begin one bad boot before the loader or the node gives the slot up,
	// and end when PID 1 is up in the slot that the node ends in.
	once bool
}

func (c cell) String() string { return c.fault + "/" + c.how }

// readCells reads the boot matrix of a board.
func readCells(board string) (all []cell, err error) {
	file := filepath.Join("testdata", "matrix", board+".txt")
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 5 || f[1] != "trial" && f[1] != "proven" {
			return nil, fmt.Errorf("%s: %q is no cell", file, line)
		}
		boots, err := strconv.Atoi(f[3])
		if err != nil {
			return nil, fmt.Errorf("%s: %q: boots: %w", file, line, err)
		}
		all = append(all, cell{board: board, fault: f[0], how: f[1], slot: f[2], boots: boots, why: strings.Join(f[4:], " ")})
	}
	return all, nil
}

// allCells are the boot matrices of all boards.
func allCells() (all []cell, err error) {
	for _, board := range matrixBoards {
		cells, err := readCells(board)
		if err != nil {
			return nil, err
		}
		all = append(all, cells...)
	}
	return all, nil
}

// once chooses one cell of each fault, in the order in which the faults appear: in turn
// a slot on trial that U-Boot starts, and a proven one that systemd-boot starts. A fault
// without such a cell has the other of the two, or else its first one, and the turn stays.
func once(all []cell, loader func(board string) boards.Bootloader) (chosen []cell) {
	kinds := []struct {
		how    string
		loader boards.Bootloader
	}{{"trial", boards.UBoot}, {"proven", boards.SystemdBoot}}
	turn := 0
	seen := map[string]bool{}
	for _, first := range all {
		if seen[first.fault] {
			continue
		}
		seen[first.fault] = true
		pick := first
		for n := range kinds {
			k := kinds[(turn+n)%len(kinds)]
			i := slices.IndexFunc(all, func(c cell) bool { return c.fault == first.fault && c.how == k.how && loader(c.board) == k.loader })
			if i < 0 {
				continue
			}
			pick = all[i]
			turn = (turn + n + 1) % len(kinds)
			break
		}
		chosen = append(chosen, pick.shortened())
	}
	return chosen
}

// shortened is the cell with as few bad boots as decide.
func (c cell) shortened() cell {
	c.once = true
	c.slot = strings.TrimSuffix(c.slot, "-bad")
	if c.boots > bootloader.Tries {
		c.boots -= bootloader.Tries - 1
	}
	return c
}

// loaderOf is the boot loader of a board; "" if there is no such board.
func loaderOf(board string) boards.Bootloader {
	b, err := boards.Find(board)
	if err != nil {
		return ""
	}
	return b.Bootloader
}

// oneLoader are the faults that not every boot loader has, and why.
var oneLoader = map[string]string{
	"containerd-broken": "it ends as agent-sick does, by the boot assessment",
	"workload-sick":     "it ends as agent-sick does, by the boot assessment",
	"state-corrupt":     "it ends as agent-sick does, by the boot assessment",
	"entry-lost":        "an entry of systemd-boot",
	"both-entries-lost": "entries of systemd-boot",
	"loader-lost":       "U-Boot is not on the disk",
	"kernel-truncated":  "U-Boot starts what has a kernel's head",
	"kernel-lost":       "an entry whose kernel is lost is to systemd-boot what a truncated one is",
	"env-empty":         "U-Boot's own file",
	"env-lost":          "U-Boot's own file",
}

// TestCells holds the boot matrices to be complete: each fault that a release for tests
// can have is in them, with each boot loader; what every go test runs has each fault
// once, with each boot loader, on trial and proven.
func TestCells(t *testing.T) {
	all, err := allCells()
	if err != nil {
		t.Fatal(err)
	}
	loaders := map[boards.Bootloader]map[string]bool{} // their faults
	for _, b := range boards.All {
		loaders[b.Bootloader] = map[string]bool{}
	}
	faults, lines := map[string]bool{}, map[string]bool{}
	for _, c := range all {
		faults[c.fault] = true
		loaders[loaderOf(c.board)][c.fault] = true
		if line := c.board + " " + c.String(); lines[line] {
			t.Errorf("%s is there twice", line)
		} else {
			lines[line] = true
		}
	}
	for _, file := range []string{"../../init/fault.go", "../../agent/fault.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`"([a-z0-9]+-[a-z-]+)": +func\(`).FindAllStringSubmatch(string(text), -1)
		if len(names) < 2 {
			t.Errorf("%s: faults %q", file, names)
		}
		for _, name := range names {
			if !faults[name[1]] {
				t.Errorf("%s: fault %s is in no boot matrix", file, name[1])
			}
		}
	}
	for loader, has := range loaders {
		for fault := range faults {
			if !has[fault] && oneLoader[fault] == "" {
				t.Errorf("no board with %s has a cell of fault %s", loader, fault)
			}
		}
	}

	chosen := once(all, loaderOf)
	var table strings.Builder
	got, has := map[string]int{}, map[string]int{}
	for _, c := range chosen {
		got[c.fault]++
		has[c.how]++
		has[string(loaderOf(c.board))]++
		if !lines[c.board+" "+c.String()] || !c.once {
			t.Errorf("%+v is no cell of a matrix", c)
		}
		fmt.Fprintf(&table, "%-18s %-7s %-17s %-2s %d\n", c.fault, c.how, c.board, c.slot, c.boots)
	}
	for fault := range faults {
		if got[fault] != 1 {
			t.Errorf("fault %s is tried %d times, want once", fault, got[fault])
		}
	}
	wanted := []string{"trial", "proven"}
	for loader := range maps.Keys(loaders) {
		wanted = append(wanted, string(loader))
	}
	for _, what := range wanted {
		if has[what] < len(chosen)/4 {
			t.Errorf("%d of %d cells are %s: too few", has[what], len(chosen), what)
		}
	}
	golden.Compare(t, filepath.Join("matrix", "once.txt"), table.String())
}

// TestOnce walks the rule with faults that not every board has.
func TestOnce(t *testing.T) {
	loader := func(board string) boards.Bootloader {
		return map[string]boards.Bootloader{"s": boards.SystemdBoot, "u": boards.UBoot}[board]
	}
	at := func(board, fault, how string) cell {
		return cell{board: board, fault: fault, how: how, slot: "A", boots: 4}
	}
	both := func(fault string) []cell {
		return []cell{at("s", fault, "trial"), at("s", fault, "proven"), at("u", fault, "trial"), at("u", fault, "proven")}
	}
	all := slices.Concat(both("1"), both("2"), []cell{at("s", "3", "proven")}, both("4"), []cell{at("u", "5", "proven"), at("x", "6", "trial")}, both("7"))
	var text []string
	for _, c := range once(all, loader) {
		text = append(text, c.board+" "+c.String())
	}
	want := []string{"u 1/trial", "s 2/proven", "s 3/proven", "u 4/trial", "u 5/proven", "x 6/trial", "s 7/proven"}
	if !slices.Equal(text, want) {
		t.Errorf("got %q, want %q", text, want)
	}
}
