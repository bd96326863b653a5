package clock

import (
	"context"
	"os"
	"path/filepath"
	"strings"
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

// TestWitness raises the floor by certificates, within bounds: what the right clock signs today
// is not over by the word of another.
func TestWitness(t *testing.T) {
	f := NewFloor(date("2031-01-01"), image)
	for _, c := range []struct{ passed, want time.Time }{
		{image.AddDate(-1, 0, 0), image}, {image, image}, {image.AddDate(0, 9, 0), image.AddDate(0, 9, 0)},
		{image.AddDate(0, 11, 0), image}, {image.AddDate(1, 1, 0), image}, {image.AddDate(1, 11, 0), image}, {date("2099-01-01"), image},
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
// one that is ahead stays. It is kept over a boot.
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
	again, err := SetFloor(clockAt(image), paths.Saved, image)
	if err != nil || !again.Witnessed.Equal(truth) || again.Certain().Before(truth) {
		t.Errorf("kept: %+v, %v", again, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestServersAgainstCertificates: servers take back what servers said, and nothing that was
// signed: not from one that lies alone, nor from two. It holds over a boot.
func TestServersAgainstCertificates(t *testing.T) {
	witnessed := date("2027-10-01")
	for name, c := range map[string]struct {
		says, want time.Time
		verb       Verb
	}{
		"before the certificate": {date("2026-06-01"), witnessed, Refuse},
		"a little before it":     {witnessed.Add(-time.Minute), witnessed, Set},
		"before what they said":  {date("2027-11-01"), date("2027-11-01"), Set},
		"before the image":       {image.AddDate(-1, 0, 0), witnessed, Refuse},
	} {
		for n := 1; n <= 2; n++ {
			dir := t.TempDir()
			clock := clockAt(date("2027-12-01"))
			floor, err := Floor{Hard: image, Passed: date("2027-12-01")}.Witness(witnessed) // known to have passed before it was signed for
			if err != nil {
				t.Fatal(err)
			}
			s := &service{o: Options{Clock: clock, Paths: Paths{Saved: filepath.Join(dir, "clock"), Run: dir}}, state: State{Floor: floor}}
			s.begin()
			s.status.Servers = []string{"a", "b"}[:n]
			var samples []Sample
			for _, server := range s.status.Servers {
				samples = append(samples, Sample{Server: server, Offset: c.says.Sub(clock.Now())})
			}
			s.polled(poll{samples: samples})
			s.save()
			now := date("2027-12-01")
			if c.verb == Set {
				now = c.says
			} else if s.status.Synced || !strings.Contains(s.status.Problem, "which is before 2027-10-01T00:00:00Z, when a certificate of the fleet begins") {
				t.Errorf("%s: %+v", name, s.status)
			}
			if got := clock.Now(); got.Sub(now).Abs() > time.Hour {
				t.Errorf("%s, %d servers: the clock says %s, want %s", name, n, got, now)
			}
			if c.verb == Refuse {
				continue // what servers said before stands
			}
			again, err := SetFloor(clockAt(image), s.o.Paths.Saved, image)
			if got := again.Certain(); err != nil || got.Sub(c.want).Abs() > time.Hour {
				t.Errorf("%s, %d servers: the floor is %s, want %s: %v", name, n, got, c.want, err)
			}
		}
	}
}

// TestTakenBack: a person takes back what a certificate of a wrong clock says, though the
// clock follows servers, and it does not come back; servers are believed again.
func TestTakenBack(t *testing.T) {
	dir := t.TempDir()
	clock := clockAt(truth)
	wrong := truth.AddDate(0, 4, 0).Truncate(time.Second)
	s := &service{o: Options{Clock: clock, Paths: Paths{Saved: filepath.Join(dir, "clock"), Run: dir}}, state: State{Floor: NewFloor(truth.AddDate(0, 0, -1), image), Synced: truth}}
	s.begin()
	s.status.Servers = []string{"a"}
	if answer := s.setByHand(control.SetClock{To: truth}); answer.Error == "" {
		t.Error("a clock that follows servers was set by hand")
	}
	if answer := s.setByHand(control.SetClock{Passed: wrong}); answer.Error != "" {
		t.Fatal(answer.Error)
	}
	if answer := s.setByHand(control.SetClock{To: truth}); !answer.BeforeSaved {
		t.Errorf("without a word that it goes back: %+v", answer)
	}
	if answer := s.setByHand(control.SetClock{To: truth, Back: true}); answer.Error != "" {
		t.Fatal(answer.Error)
	}
	for boots := range 2 {
		for _, at := range []time.Time{wrong, wrong.AddDate(0, -1, 0)} {
			if answer := s.setByHand(control.SetClock{Passed: at}); !strings.Contains(answer.Error, "which a person took back") {
				t.Errorf("boot %d: %+v", boots, answer)
			}
		}
		if at := s.state.Floor.Certain(); at.Sub(truth).Abs() > time.Hour || clock.Now().Sub(truth).Abs() > time.Hour {
			t.Errorf("boot %d: floor %s, clock %s", boots, at, clock.Now())
		}
		floor, err := SetFloor(clock, s.o.Paths.Saved, image)
		if err != nil {
			t.Fatal(err)
		}
		s = &service{o: s.o, state: State{Floor: floor}, status: s.status}
		s.begin()
	}
	s.polled(poll{samples: []Sample{{Server: "a"}}})
	if !s.status.Synced {
		t.Errorf("%+v", s.status)
	}
	if answer := s.setByHand(control.SetClock{Passed: wrong.AddDate(0, 0, 1)}); answer.Error != "" {
		t.Error(answer.Error)
	}
}
