// Package control is what PID 1 and its services say to the other programs of a node, and
// what these may ask: one type for each thing that one process tells another.
//
// On PID 1's control socket one JSON object per line goes in, one or more come out; package
// supervise answers, [Dial] asks. The socket is root's alone, as that of the clock service
// is ([AskClock]). What all may know lies in files in [RunDir]: [Boot], [Assessment],
// [Network] and [Clock]. It decides nothing.
package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Path is where the socket lies on a node.
const Path = RunDir + "/init.sock"

// MaxRequest is the longest request line, its newline included, in bytes.
const MaxRequest = 4096

// Op is what a request asks for.
type Op string

const (
	OpStatus  Op = "status"  // one Response with Status
	OpRestart Op = "restart" // Service; one Response, sent when the order is given
	// OpStart and OpStop are as OpRestart, of a service that a node has on demand. One that
	// runs, or does not, goes on to.
	OpStart Op = "start"
	OpStop  Op = "stop"

	OpLogs     Op = "logs"     // Service, Tail, Follow; Responses with Line, then an empty one
	OpReboot   Op = "reboot"   // one Response; the machine goes down in order
	OpPoweroff Op = "poweroff" // as reboot

	// These are about node.yaml, each with one Response with Config.
	OpConfig  Op = "config"  // how it stands
	OpSet     Op = "set"     // File, SHA256, Base, Check, UndoSeconds; another text
	OpConfirm Op = "confirm" // Base; keep the network settings that are tried
	OpUndo    Op = "undo"    // take them back

	// OpAssess is the agent's word on this boot: Verdict, Why; one Response with
	// Assessment. Without a Verdict it only asks.
	OpAssess Op = "assess"

	// OpReset has the next boot make STATE anew: KeepConfig, and File and SHA256 of a
	// join.yaml; one Response. It does not reboot.
	OpReset Op = "reset"
)

// Request is one line from a client.
type Request struct {
	Op      Op     `json:"op"`
	Service string `json:"service,omitempty"`
	// Tail is how many lines of the log to begin with; 0: all that are kept.
	Tail int `json:"tail,omitempty"`
	// Follow keeps sending new lines until the client hangs up.
	Follow bool `json:"follow,omitempty"`
	// File is the name of a file beside the socket: a text is too long for a line.
	// SHA256 is its hash in hex. The client removes it after the answer.
	File   string `json:"file,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	// Base is the revision that the client has read, or wants to confirm; "": any.
	Base string `json:"base,omitempty"`
	// Check only says what would be.
	Check bool `json:"check,omitempty"`
	// UndoSeconds is how long other network settings wait to be confirmed; 0: the default.
	UndoSeconds int `json:"undo_seconds,omitempty"`
	// KeepConfig has the new STATE begin with the node.yaml that is kept.
	KeepConfig bool `json:"keep_config,omitempty"`
	// Verdict is "good", "pending", or "sick": the node itself is well, what runs on it is
	// not. Why is what the last two wait for, at most MaxWhy bytes.
	Verdict string `json:"verdict,omitempty"`
	Why     string `json:"why,omitempty"`
}

// MaxWhy is the longest reason of a verdict, in bytes.
const MaxWhy = 512

// Response is one line to a client.
type Response struct {
	Error string `json:"error,omitempty"`
	// NoService says of the error that it is [ErrNoService].
	NoService bool `json:"no_service,omitempty"`

	Status *Status `json:"status,omitempty"`
	Line   *string `json:"line,omitempty"`
	Config *Config `json:"config,omitempty"`

	Assessment *Assessment `json:"assessment,omitempty"`
}

// Config is how node.yaml stands. A revision is the SHA-256 of a text in hex.
type Config struct {
	State   string `json:"state"`   // change.State
	Running string `json:"running"` // revision of the text that the node runs with
	Kept    string `json:"kept"`    // and of the one that the next boot runs with
	// UndoSeconds is the time left to confirm.
	UndoSeconds int64 `json:"undo_seconds,omitempty"`
	// Last is what became of the last change since boot.
	Last string `json:"last,omitempty"`
	// Restarts are the services that start anew for a change, Warnings what it does
	// not reach.
	Restarts []string `json:"restarts,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// Status is what PID 1 knows about the node.
type Status struct {
	UptimeSeconds int64      `json:"uptime_seconds"`
	Services      []Service  `json:"services"`
	Degraded      []Degraded `json:"degraded"`
	// Ending is "reboot" or "poweroff" once somebody asked for it.
	Ending string `json:"ending,omitempty"`
}

// Service is where one service stands.
type Service struct {
	Name  string `json:"name"`
	State string `json:"state"` // supervise.State
	// Since is when it came into that state, by the node's clock of now.
	Since time.Time `json:"since"`
	PID   int       `json:"pid,omitempty"`
	Vital bool      `json:"vital,omitempty"`
	// Failing says that it exited too often in a row, even if it is running just now.
	Failing bool `json:"failing,omitempty"`
	// Exits in a row, Starts since boot, and how it ended last.
	Exits    int    `json:"exits"`
	Starts   int    `json:"starts"`
	LastExit string `json:"last_exit,omitempty"`
	// Text is what it says about itself (STATUS=).
	Text string `json:"text,omitempty"`
}

// Degraded is one thing that does not work, and why.
type Degraded struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// ParseRequest reads one line without its newline. An unknown key, an unknown
// op or a key that the op does not take is an error: who asks for something else
// than PID 1 would do has to know.
func ParseRequest(line []byte) (Request, error) {
	var r Request
	if len(line) >= MaxRequest {
		return r, fmt.Errorf("request is longer than %d bytes", MaxRequest)
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Request{}, fmt.Errorf("read request: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Request{}, errors.New("read request: more than one object on the line")
	}
	switch r.Op {
	case OpStatus, OpReboot, OpPoweroff, OpConfig, OpUndo:
		if r != (Request{Op: r.Op}) {
			return Request{}, fmt.Errorf("op %q takes no further keys", r.Op)
		}
	case OpRestart, OpStart, OpStop:
		if r.Service == "" || r != (Request{Op: r.Op, Service: r.Service}) {
			return Request{}, fmt.Errorf("op %q takes a service and no further keys", r.Op)
		}
	case OpLogs:
		if r.Service == "" || r.Tail < 0 || r != (Request{Op: r.Op, Service: r.Service, Tail: r.Tail, Follow: r.Follow}) {
			return Request{}, fmt.Errorf("op %q takes a service and a tail of at least 0", r.Op)
		}
	case OpSet:
		want := Request{Op: r.Op, File: r.File, SHA256: r.SHA256, Base: r.Base, Check: r.Check, UndoSeconds: r.UndoSeconds}
		if r.File == "" || r.SHA256 == "" || r.UndoSeconds < 0 || r != want {
			return Request{}, fmt.Errorf("op %q takes a file and its sha256, a base, check and undo_seconds of at least 0", r.Op)
		}
	case OpReset:
		if r != (Request{Op: r.Op, File: r.File, SHA256: r.SHA256, KeepConfig: r.KeepConfig}) || (r.File == "") != (r.SHA256 == "") {
			return Request{}, fmt.Errorf("op %q takes keep_config, and a file with its sha256", r.Op)
		}
	case OpAssess:
		said := r.Verdict == "good" && r.Why == "" || (r.Verdict == "pending" || r.Verdict == "sick") && r.Why != ""
		asked := r.Verdict == "" && r.Why == ""
		if r != (Request{Op: r.Op, Verdict: r.Verdict, Why: r.Why}) || !said && !asked || len(r.Why) > MaxWhy {
			return Request{}, fmt.Errorf(`op %q takes a verdict, good, pending or sick, the last two with why, in %d bytes`, r.Op, MaxWhy)
		}
	case OpConfirm:
		if r != (Request{Op: r.Op, Base: r.Base}) {
			return Request{}, fmt.Errorf("op %q takes a base and no further keys", r.Op)
		}
	default:
		return Request{}, fmt.Errorf("unknown op %q", r.Op)
	}
	return r, nil
}
