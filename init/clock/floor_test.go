package clock

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// TestFloorRises: what has passed for sure grows while a node without time servers runs, and
// by what servers say; the word of a broken clock or of a person is not for sure.
func TestFloorRises(t *testing.T) {
	dir := t.TempDir()
	clock := clockAt(image)
	s := &service{o: Options{Clock: clock, Paths: Paths{Saved: filepath.Join(dir, "clock"), Run: dir}}, state: State{Floor: NewFloor(time.Time{}, image)}}
	floor := func() time.Time {
		t.Helper()
		if err := s.publish(); err != nil {
			t.Fatal(err)
		}
		status, err := control.ReadClock(dir)
		if err != nil {
			t.Fatal(err)
		}
		return status.Floor
	}
	near := func(what string, got, want time.Time) {
		t.Helper()
		if got.Sub(want).Abs() > time.Hour {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	s.begin()
	s.ran()
	near("at the start", floor(), image)
	_ = clock.Slew(500 * 24 * time.Hour) // the time goes by
	s.save()
	near("after 500 days", floor(), image.AddDate(0, 0, 500))
	near("and saved", s.status.SavedAt, image.AddDate(0, 0, 500))
	again, err := SetFloor(clockAt(date("1970-01-01")), s.o.Paths.Saved, image)
	if err != nil {
		t.Fatal(err)
	}
	near("after a boot", again.Certain(), image.AddDate(0, 0, 500))

	if answer := s.setByHand(control.SetClock{To: date("2031-01-01")}); answer.Error != "" {
		t.Fatal(answer.Error)
	}
	near("by a person's word", floor(), image.AddDate(0, 0, 500))
	s.status.Servers = []string{"a", "b"}
	at := func(says time.Time) []Sample {
		off := says.Sub(clock.Now())
		return []Sample{{Server: "a", Offset: off}, {Server: "b", Offset: off}}
	}
	s.polled(poll{samples: at(date("2029-01-01"))})
	near("by servers", floor(), date("2029-01-01"))
	s.polled(poll{samples: at(truth)})
	near("by servers that know better", floor(), truth)
	_ = clock.Slew(24 * time.Hour)
	s.ran()
	near("a day later", floor(), truth.AddDate(0, 0, 1))
}

// TestBrokenClock: a hardware clock that is years ahead is no reason to call a certificate
// over, however often it was saved.
func TestBrokenClock(t *testing.T) {
	dir := t.TempDir()
	clock := clockAt(image.AddDate(5, 0, 0))
	s := &service{o: Options{Clock: clock, Paths: Paths{Saved: filepath.Join(dir, "clock"), Run: dir}}, state: State{Floor: NewFloor(time.Time{}, image)}}
	s.begin()
	s.save()
	f, err := SetFloor(clock, s.o.Paths.Saved, image)
	if err != nil || f.Certain().Sub(image) > time.Hour || f.Saved.Before(image.AddDate(4, 11, 0)) {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestWitness raises the floor by certificates, within bounds.
func TestWitness(t *testing.T) {
	f := NewFloor(date("2031-01-01"), image)
	for _, c := range []struct{ passed, want time.Time }{
		{image.AddDate(-1, 0, 0), image}, {image, image}, {image.AddDate(1, 11, 0), image.AddDate(1, 11, 0)},
		{image.AddDate(2, 1, 0), image}, {date("2099-01-01"), image},
	} {
		got, err := f.Witness(c.passed)
		if !got.Certain().Equal(c.want) || (err != nil) != (c.passed.After(image) && c.want.Equal(image)) {
			t.Errorf("%s: %s, %v", c.passed, got.Certain(), err)
		}
	}
	if _, err := (Floor{}).Witness(image); err == nil {
		t.Error("a certificate was believed without any floor")
	}
}

// TestWitnessed has the service hear it over its socket: a clock that is behind follows, and
// one that is ahead stays. Agreeing servers know better than certificates.
func TestWitnessed(t *testing.T) {
	dir := t.TempDir()
	clock := clockAt(image)
	paths := Paths{Saved: filepath.Join(dir, "clock"), Run: dir, Socket: filepath.Join(dir, "sock")}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ended := make(chan error)
	go func() {
		ended <- Run(ctx, nodeconfig.Config{}, Options{Floor: NewFloor(time.Time{}, image), Clock: clock, Paths: paths})
	}()
	tell := func(passed time.Time) error {
		for {
			_, err := control.AskClock(ctx, paths.Socket, control.SetClock{Passed: passed})
			if _, missing := os.Stat(paths.Socket); missing == nil || ctx.Err() != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	waitStatus(t, dir, func(control.Clock) bool { return tell(truth) == nil })
	status := waitStatus(t, dir, func(s control.Clock) bool { return !s.Floor.Before(truth.Truncate(time.Minute)) })
	if status.Synced || clock.Now().Sub(truth).Abs() > time.Hour {
		t.Errorf("clock %s, %+v", clock.Now(), status)
	}
	if err := tell(date("2099-01-01")); err == nil {
		t.Error("a certificate of 2099 counted")
	}
	on, err := load(passedFile(paths.Saved))
	if err != nil || on.Before(truth) {
		t.Errorf("kept: %s, %v", on, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	next, a := (State{Floor: Floor{Hard: image, Passed: date("2028-01-01")}}).Step(date("2028-01-01"), 1, []Sample{{Server: "a", Offset: truth.Sub(date("2028-01-01"))}})
	if a.Verb != Set || !next.Floor.Certain().Equal(truth) {
		t.Errorf("%+v, %+v", next, a)
	}
}
