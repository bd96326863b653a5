package supervise

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// text is what a notice says, for a table.
func (n notice) text() string {
	var parts []string
	for what, said := range map[string]bool{"ready": n.Ready, "stopping": n.Stopping, "reloading": n.Reloading, "watchdog": n.Watchdog, "trigger": n.Trigger, "changed": n.Changed} {
		if said {
			parts = append(parts, what)
		}
	}
	if n.Status != nil {
		parts = append(parts, fmt.Sprintf("%q", *n.Status))
	}
	if n.MainPID != 0 || n.Errno != 0 {
		parts = append(parts, fmt.Sprint(n.MainPID, " ", n.Errno))
	}
	return strings.Join(parts, " ")
}

func TestParseNotice(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"READY=1":                         "ready",
		"READY=1\n":                       "ready",
		"READY=1\r\n":                     "", // not ours to mend
		"READY=0\nREADY":                  "",
		"STOPPING=1":                      "stopping",
		"RELOADING=1\nMONOTONIC_USEC=1":   "reloading",
		"WATCHDOG=1":                      "watchdog",
		"WATCHDOG=trigger":                "trigger",
		"STATUS=":                         `""`,
		"STATUS=a=b\tc\x1b[31m\xff":       `"a=b?c?[31m?"`,
		"STATUS=first\nSTATUS=second":     `"second"`,
		"MAINPID=4711\nERRNO=2":           "4711 2",
		"MAINPID=1":                       "",
		"MAINPID=-5\nERRNO=-5":            "",
		"MAINPID=99999999999\nERRNO=1e99": "",
		"X_CHANGED=1":                     "changed",
		"X_CHANGED=yes":                   "",
		"X_OURS=1\n\n=\x00":               "",
		"STATUS=" + strings.Repeat("ä", 200) + "\nMAINPID= 7": fmt.Sprintf("%q", strings.Repeat("ä", maxStatus/2)),
	} {
		if got := parseNotice([]byte(in)).text(); got != want {
			t.Errorf("parseNotice(%q) = %s, want %s", in, got, want)
		}
	}
}

func FuzzParseNotice(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=fine\nMAINPID=12\nERRNO=3"))
	f.Add([]byte("STATUS=\xff\xfe\x1b]0;\x07\nWATCHDOG=trigger\n=\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		n := parseNotice(b)
		if !bytes.Equal(b, before) {
			t.Error("input was changed")
		}
		if n.MainPID == 1 || n.MainPID < 0 || n.Errno < 0 {
			t.Errorf("%+v", n)
		}
		if n.Status != nil && (len(*n.Status) > maxStatus || !utf8.ValidString(*n.Status) || strings.ContainsAny(*n.Status, "\n\x1b")) {
			t.Errorf("status %q", *n.Status)
		}
	})
}

func FuzzSender(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, oob []byte) {
		for i := range oob { // no SCM_RIGHTS: closing numbers of ours is what it does
			if i%4 == 0 && oob[i] == 1 {
				oob[i] = 2
			}
		}
		sender(oob)
	})
}
