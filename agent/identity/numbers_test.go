package identity

import (
	"errors"
	"io/fs"
	"maps"
	"testing"

	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/notice"
)

// numbersDisk is the node's folder on a disk that loses power.
type numbersDisk struct{ *crashdisk.Files }

func (d numbersDisk) Read(name string) ([]byte, error) { return d.ReadFile("identity/" + name) }

func (d numbersDisk) Replace(name string, data []byte) error {
	return durable.ReplaceIn(d.Files, "identity/"+name, data, 0o600)
}

func numbersOn(files map[string][]byte, writes int) numbersDisk {
	return numbersDisk{crashdisk.NewFiles(files, crashdisk.NewPower(writes))}
}

// TestNumbersPowerCut cuts the power at each write of two reservations: no number that was given
// is given again, though chance puts the next run as low as it can.
func TestNumbersPowerCut(t *testing.T) {
	for writes := 0; ; writes++ {
		d := numbersOn(nil, writes)
		n := openNumbers(d, 0)
		last := uint64(0)
		for range 300 {
			number := n.Next()
			if n.Problem() != nil {
				break // it holds for this run alone
			}
			if number <= last {
				t.Fatalf("writes=%d: %d follows on %d", writes, number, last)
			}
			last = number
		}
		for seed := range uint64(16) {
			after := openNumbers(numbersOn(d.AfterCut(seed), 1000), 0)
			if number := after.Next(); number <= last || after.Problem() != nil {
				t.Fatalf("writes=%d seed=%d: %d after %d, %v", writes, seed, number, last, after.Problem())
			}
		}
		if n.Problem() == nil {
			if writes > 8 {
				t.Errorf("300 numbers take %d writes", writes)
			}
			return
		}
		if !errors.Is(n.Problem(), crashdisk.ErrPowerCut) {
			t.Fatal(n.Problem())
		}
	}
}

// TestNumbersRestored puts an old copy of STATE back, or one that is damaged or empty: the node
// hears under which number others know it, and goes on above that.
func TestNumbersRestored(t *testing.T) {
	d := numbersOn(nil, 1000)
	n := openNumbers(d, 0)
	n.Next()
	old := d.AfterCut(0)
	for range 5000 {
		n.Next()
	}
	newest := n.Next()
	damaged := maps.Clone(old)
	damaged["identity/"+numbersName] = []byte("junk")
	for name, files := range map[string]map[string][]byte{"old": old, "none": nil, "damaged": damaged} {
		d := numbersOn(files, 1000)
		n := openNumbers(d, 0)
		if problem := n.Problem(); (problem != nil) != (name == "damaged") {
			t.Errorf("%s: %v", name, problem)
		}
		if !n.Heard(newest) || n.Heard(newest) || n.Heard(newest-1) {
			t.Errorf("%s: what others have is no news, or twice", name)
		}
		if got := n.Next(); got <= newest || n.Problem() != nil {
			t.Errorf("%s: %d after %d, %v", name, got, newest, n.Problem())
		}
		if again := openNumbers(numbersOn(d.AfterCut(0), 1000), 0); again.Next() <= newest {
			t.Errorf("%s: forgotten at the next start", name)
		}
	}
}

// full is a disk that takes nothing.
type full struct{}

func (full) Read(string) ([]byte, error)  { return nil, fs.ErrNotExist }
func (full) Replace(string, []byte) error { return errors.New("no space left on device") }

// TestNumbersFull gives numbers to a node that has to say that its disk is full.
func TestNumbersFull(t *testing.T) {
	n := openNumbers(full{}, 7)
	last := uint64(0)
	for range 1000 {
		number := n.Next()
		if number <= last || number > notice.MaxNumber || n.Problem() == nil {
			t.Fatalf("%d after %d, %v", number, last, n.Problem())
		}
		last = number
	}
}

// TestNumbersFolder keeps them in a folder of this machine.
func TestNumbersFolder(t *testing.T) {
	dir := t.TempDir()
	first := OpenNumbers(dir).Next()
	if second := OpenNumbers(dir).Next(); second <= first {
		t.Errorf("%d after %d", second, first)
	}
}

// slowDisk is a disk that takes nothing until it is told to.
type slowDisk struct {
	numbersDisk
	begun, goOn chan bool
}

func (d slowDisk) Replace(name string, data []byte) error {
	d.begun <- true
	<-d.goOn
	return d.numbersDisk.Replace(name, data)
}

// TestNumbersSlow: what others have heard is noted while a slow disk takes a number.
func TestNumbersSlow(t *testing.T) {
	d := slowDisk{numbersOn(nil, 1000), make(chan bool), make(chan bool)}
	n := openNumbers(d, 0)
	given := make(chan uint64)
	go func() { given <- n.Next() }()
	<-d.begun
	if !n.Heard(700) || n.Problem() != nil {
		t.Error("it is not heard")
	}
	close(d.goOn)
	if number := <-given; number != 1 {
		t.Errorf("number %d", number)
	}
	go func() { given <- n.Next() }()
	<-d.begun // it is above what the disk has
	if number := <-given; number != 701 {
		t.Errorf("number %d after 700 was heard", number)
	}
}
