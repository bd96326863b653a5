package bucket

import (
	"testing"
	"time"
)

// TestBucket spends, owes and waits.
func TestBucket(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	b := Bucket{Rate: 10, Most: 100}
	if !b.Take(100, now) || b.Take(1, now) || b.Wait(1, now) != 100*time.Millisecond {
		t.Errorf("%+v", b)
	}
	if now = now.Add(time.Second); !b.Take(10, now) || b.Take(1, now) {
		t.Errorf("after a second: %+v", b)
	}
	if b.Owe(50, now); b.Wait(1, now) != 5100*time.Millisecond || b.Wait(1000, now) != 15*time.Second {
		t.Errorf("owing: %s, %s", b.Wait(1, now), b.Wait(1000, now))
	}
	if b.Owe(1<<40, now); b.Wait(1, now) != 10*time.Second+100*time.Millisecond {
		t.Errorf("owing without end: %s", b.Wait(1, now))
	}
	if b.Take(1, now.Add(-time.Hour)) || !b.Take(100, now.Add(time.Hour)) {
		t.Errorf("the clock goes: %+v", b)
	}
	if new(Bucket).Take(1, now) {
		t.Error("an empty bucket gives")
	}
}

// TestOne gives what it holds, and then no more than comes back.
func TestOne(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	b := Bucket{Rate: 0.5, Most: 3}
	for range 3 {
		if wait := b.One(now); wait != 0 {
			t.Fatal(wait)
		}
	}
	if wait := b.One(now); wait != 2*time.Second {
		t.Error(wait)
	}
	if wait := b.One(now.Add(-time.Hour)); wait != 2*time.Second {
		t.Errorf("a clock that goes back: %s", wait)
	}
	if wait := b.One(now.Add(2 * time.Second)); wait != 0 {
		t.Error(wait)
	}
	if wait := b.One(now.Add(time.Hour)); wait != 0 || b.spent != 1 {
		t.Error(wait, b.spent)
	}
	if b.Refund(); b.spent != 0 {
		t.Error(b.spent)
	}
}
