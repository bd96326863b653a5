package serve

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/init/control"
)

// TestTime asks what the clock goes by, and hands a time to the clock service.
func TestTime(t *testing.T) {
	var run string
	address, f, _ := ready(t, func(c *Config) { run = c.Machine.Run })
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	set := func(at *timestamppb.Timestamp, back bool) (*connect.Response[apiv1.SetTimeResponse], error) {
		return c.SetTime(timeout(t), connect.NewRequest(&apiv1.SetTimeRequest{Time: at, Back: back}))
	}
	to := time.Date(2026, 11, 25, 22, 0, 0, 5000, time.UTC)
	_, err := set(timestamppb.New(to), false)
	has(t, err, "failed_precondition", "connect to the clock service")
	l, err := net.Listen("unix", filepath.Join(run, "clock.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadBytes('\n')
			r, err := control.ParseSetClock(line)
			answer := control.ClockSet{Was: time.Unix(7, 0), Now: r.To}
			if err != nil || !r.Back {
				answer = control.ClockSet{Error: "back it is not"}
			}
			_ = json.NewEncoder(conn).Encode(answer)
			conn.Close()
		}
	}()
	_, err = set(nil, false)
	has(t, err, "invalid_argument", "no time")
	_, err = set(&timestamppb.Timestamp{Nanos: -1}, false)
	has(t, err, "invalid_argument")
	_, err = set(timestamppb.New(to), false)
	has(t, err, "back it is not")
	if answer, err := set(timestamppb.New(to), true); err != nil || !answer.Msg.Now.AsTime().Equal(to) || answer.Msg.Was.Seconds != 7 {
		t.Errorf("%v, %v", answer, err)
	}

	for text, want := range map[string]string{
		`{"synced":true,"source":"192.0.2.1","offset":"-1.5ms","servers":["192.0.2.1","a"],"answers":[{"server":"192.0.2.1","stratum":2,"offset":"-1.5ms","error":"20ms"}]}`: "follows 192.0.2.1",
		`{"by_hand":"2026-11-25T22:00:00Z","jump":"720h0m0s","jump_at":"2026-11-25T22:00:00Z"}`:                                                                              "set by hand on 2026-11-25",
		`{"problem":"the servers disagree, half against half","by_hand":"2026-11-25T22:00:00Z"}`:                                                                             "the servers disagree, half against half",
		`{}`: "on its own",
	} {
		if err := os.WriteFile(filepath.Join(run, control.ClockFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		status, err := c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{}))
		if err != nil || status.Msg.Clock.Text != want {
			t.Errorf("%s: %v, %v", text, status.Msg.GetClock(), err)
		}
		answer, err := c.GetTime(timeout(t), connect.NewRequest(&apiv1.GetTimeRequest{}))
		if err != nil || answer.Msg.Sure != (want == "follows 192.0.2.1") {
			t.Errorf("%s: %v, %v", text, answer, err)
		}
		if a := answer.Msg.Answers; answer.Msg.Sure && (len(a) != 1 || a[0].Stratum != 2 || a[0].Offset.AsDuration() != -1500*time.Microsecond || answer.Msg.Polled != nil) {
			t.Errorf("%s: %v", text, answer.Msg)
		}
	}
	if err := os.WriteFile(filepath.Join(run, control.ClockFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = c.GetTime(timeout(t), connect.NewRequest(&apiv1.GetTimeRequest{}))
	has(t, err, "unavailable")
}
