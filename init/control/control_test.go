package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseRequest(t *testing.T) {
	for line, want := range map[string]string{
		`{"op":"status"}`:                                         "",
		` {"op":"status"} `:                                       "",
		`{"op":"restart","service":"agent"}`:                      "",
		`{"op":"start","service":"etcd"}`:                         "",
		`{"op":"stop","service":"etcd"}`:                          "",
		`{"op":"stop"}`:                                           `op "stop" takes a service and no further keys`,
		`{"op":"logs","service":"agent"}`:                         "",
		`{"op":"logs","service":"agent","tail":10,"follow":true}`: "",
		`{"op":"reboot"}`:                                         "",
		`{"op":"poweroff"}`:                                       "",
		``:                                                        "read request: EOF",
		`null`:                                                    `unknown op ""`,
		`{"op":"assessment"}`:                                     `unknown op "assessment"`,
		`{"op":"status","service":"agent"}`:                       `op "status" takes no further keys`,
		`{"op":"reboot","force":true}`:                            `read request: json: unknown field "force"`,
		`{"op":"restart"}`:                                        `op "restart" takes a service and no further keys`,
		`{"op":"logs","service":"agent","tail":-1}`:               `op "logs" takes a service and a tail of at least 0`,
		`{"op":"config"}`:                                         "",
		`{"op":"undo"}`:                                           "",
		`{"op":"confirm","base":"00"}`:                            "",
		`{"op":"set","file":"new","sha256":"00","base":"01","check":true,"undo_seconds":30}`: "",
		`{"op":"set","file":"new"}`:                                                         `op "set" takes a file and its sha256, a base, check and undo_seconds of at least 0`,
		`{"op":"set","file":"new","sha256":"00","tail":1}`:                                  `op "set" takes a file and its sha256, a base, check and undo_seconds of at least 0`,
		`{"op":"assess"}`:                                                                   "",
		`{"op":"assess","verdict":"good"}`:                                                  "",
		`{"op":"assess","verdict":"bad","why":"web is unhealthy"}`:                          `op "assess" takes a verdict, good, pending or sick, the last two with why, in 512 bytes`,
		`{"op":"assess","verdict":"pending","why":"web is unhealthy"}`:                      "",
		`{"op":"assess","verdict":"sick","why":"web is unhealthy"}`:                         "",
		`{"op":"assess","verdict":"sick"}`:                                                  `op "assess" takes a verdict, good, pending or sick, the last two with why, in 512 bytes`,
		`{"op":"assess","verdict":"pending"}`:                                               `op "assess" takes a verdict, good, pending or sick, the last two with why, in 512 bytes`,
		`{"op":"assess","verdict":"good","why":"it is"}`:                                    `op "assess" takes a verdict, good, pending or sick, the last two with why, in 512 bytes`,
		`{"op":"assess","verdict":"fine","why":"x"}`:                                        `op "assess" takes a verdict, good, pending or sick, the last two with why, in 512 bytes`,
		`{"op":"assess","why":"x"}`:                                                         `op "assess" takes a verdict, good, pending or sick, the last two with why, in 512 bytes`,
		`{"op":"assess","verdict":"good","service":"agent"}`:                                `op "assess" takes a verdict, good, pending or sick, the last two with why, in 512 bytes`,
		`{"op":"assess","verdict":"pending","why":"` + strings.Repeat("x", MaxWhy+1) + `"}`: `op "assess" takes a verdict, good, pending or sick, the last two with why, in 512 bytes`,
		`{"op":"reset"}`: "",
		`{"op":"reset","keep_config":true,"file":"join","sha256":"00"}`:  "",
		`{"op":"reset","file":"join"}`:                                   `op "reset" takes keep_config, and a file with its sha256`,
		`{"op":"set","file":"new","sha256":"00","keep_config":true}`:     `op "set" takes a file and its sha256, a base, check and undo_seconds of at least 0`,
		`{"op":"undo","base":"00"}`:                                      `op "undo" takes no further keys`,
		`{"op":"confirm","check":true}`:                                  `op "confirm" takes a base and no further keys`,
		`{"op":"logs","service":"agent","file":"x"}`:                     `op "logs" takes a service and a tail of at least 0`,
		`{"op":"reboot"}{"op":"poweroff"}`:                               "read request: more than one object on the line",
		`{"op":7}`:                                                       "read request: json: cannot unmarshal number into Go struct field Request.op of type control.Op",
		`{"op":"restart","service":"` + strings.Repeat("x", 5000) + `"}`: "request is longer than 4096 bytes",
	} {
		_, err := ParseRequest([]byte(line))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%.80s: %q, want %q", line, got, want)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"op":"logs","service":"agent","tail":10,"follow":true}`))
	f.Add([]byte(`{"op":"restart","service":"a\u0000\ud800"}`))
	f.Add([]byte(`[[[[[[[[{"op":1e999}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseRequest(line)
		if err != nil {
			if r != (Request{}) {
				t.Errorf("a request beside an error: %+v", r)
			}
			return
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseRequest(b); len(b) < MaxRequest && (err != nil || again != r) {
			t.Errorf("%s became %+v, %v", b, again, err)
		}
	})
}

func FuzzParseSetClock(f *testing.F) {
	f.Add([]byte(`{"to":"2026-11-25T22:00:00Z","back":true}`))
	f.Add([]byte(`{"to":"9999-12-31T23:59:59.999999999+23:59"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if s, err := ParseSetClock(line); (err == nil) == s.To.IsZero() {
			t.Errorf("%q: %+v, %v", line, s, err)
		}
	})
}

// answers is a server that sends text for whatever is asked, and hangs up if hang
// is not set.
func answers(t *testing.T, text string, hang bool) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf := make([]byte, MaxRequest)
		_, _ = conn.Read(buf)
		_, _ = io.Copy(conn, bytes.NewReader([]byte(text)))
		if hang {
			_, _ = conn.Read(buf)
		}
	}()
	c, err := Dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestClient(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if s, err := answers(t, `{"status":{"uptime_seconds":7,"services":[{"name":"agent"}]}}`+"\n", false).Status(ctx); err != nil || s.UptimeSeconds != 7 || s.Services[0].Name != "agent" {
		t.Errorf("status: %+v, %v", s, err)
	}
	for text, want := range map[string]string{
		"":                     "EOF",
		"{\n":                  "unexpected end of JSON input",
		"{}\n":                 "ask PID 1 for status: answer has none",
		"{\"error\":\"no\"}\n": "ask PID 1 for status: no",
	} {
		if _, err := answers(t, text, false).Status(ctx); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if err := answers(t, "{}\n", false).Restart(ctx, "agent"); err != nil {
		t.Error(err)
	}
	short, stop := context.WithTimeout(ctx, 30*time.Millisecond)
	defer stop()
	if err := answers(t, "", true).Reboot(short); err == nil {
		t.Error("no answer was an answer")
	}
	var lines []string
	err := answers(t, `{"line":"a"}`+"\n"+`{"line":""}`+"\n{}\n", true).Logs(ctx, "agent", 0, false, func(s string) { lines = append(lines, s) })
	if err != nil || strings.Join(lines, "|") != "a|" {
		t.Errorf("logs: %q, %v", lines, err)
	}
	follow, stop := context.WithCancel(ctx)
	err = answers(t, `{"line":"a"}`+"\n", true).Logs(follow, "agent", 0, true, func(string) { stop() })
	if err != nil {
		t.Errorf("logs, until we had enough: %v", err)
	}
	if _, err := Dial(ctx, filepath.Join(t.TempDir(), "none")); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("dial nobody: %v", err)
	}
}
