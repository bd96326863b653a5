package memory

import (
	"errors"
	"testing"

	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
)

// TestArmings counts armings while the loader forgets and repeats its numbers.
func TestArmings(t *testing.T) {
	m := In(t.TempDir())
	at := func(a, b int) bootloader.State {
		return bootloader.State{A: bootloader.Entry{Number: a}, B: bootloader.Entry{Number: b}}
	}
	is := func(got int64, err error) func(want int64) {
		return func(want int64) {
			t.Helper()
			if err != nil || got != want {
				t.Errorf("arming %d, %v: want %d", got, err, want)
			}
		}
	}
	is(NextArming(m, at(0, 0)))(1)
	is(NextArming(m, at(1, 4)))(5) // an older release has armed
	if err := KeepArmings(m, at(1, 4)); err != nil {
		t.Fatal(err)
	}
	is(NextArming(m, at(1, 0)))(5) // what was retired took its number along
	is(UseArming(m, at(1, 0)))(5)
	is(UseArming(m, at(1, 2)))(6)
	if err := KeepArmings(m, at(1, 2)); err != nil {
		t.Fatal(err)
	}
	is(NextArming(m, at(9, 2)))(10)
	is(NextArming(m, at(1, 2)))(7)
}

// TestArmingPowerCut cuts the power at each write of the count: no number comes twice.
func TestArmingPowerCut(t *testing.T) {
	for writes := 0; ; writes++ {
		files := crashdisk.NewFiles(nil, crashdisk.NewPower(writes))
		var used int64
		var err error
		for err == nil && used < 3 {
			var n int64
			if n, err = UseArming(remembered{files}, bootloader.State{}); err == nil {
				used = n
			}
		}
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatal(err)
		}
		for seed := range uint64(16) {
			after := remembered{crashdisk.NewFiles(files.AfterCut(seed), crashdisk.NewPower(forEver))}
			if n, err := UseArming(after, bootloader.State{}); err != nil || n <= used {
				t.Fatalf("writes=%d seed=%d: arming %d after %d, %v", writes, seed, n, used, err)
			}
		}
		if err == nil {
			return
		}
	}
}
