package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// ClockPath is where the clock service listens on a node. Its socket is root's alone.
const ClockPath = RunDir + "/clock.sock"

// SetClock is the one line that a client of the clock service sends: what time it is,
// by the word of a person, or what time has passed, by that of certificates.
type SetClock struct {
	To time.Time `json:"to,omitzero"`
	// Back allows a time before the one that the node saved last, or that certificates say.
	Back bool `json:"back,omitempty"`
	// Passed is when a certificate begins that the fleet's CA signed and that was verified.
	// It stands alone: it raises the floor, within bounds, and sets no clock back.
	Passed time.Time `json:"passed,omitzero"`
}

// ClockSet is the answer: what the clock said before and after, or why it was not set.
type ClockSet struct {
	Error string `json:"error,omitempty"`
	// BeforeSaved says of the error that it is [ErrBeforeSaved].
	BeforeSaved bool `json:"before_saved,omitempty"`

	Was time.Time `json:"was,omitzero"`
	Now time.Time `json:"now,omitzero"`
}

// ParseSetClock reads a client's line.
func ParseSetClock(line []byte) (SetClock, error) {
	var s SetClock
	if len(line) >= MaxRequest {
		return s, fmt.Errorf("request is longer than %d bytes", MaxRequest)
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return SetClock{}, fmt.Errorf("read request: %w", err)
	}
	switch {
	case s.To.IsZero() && s.Passed.IsZero():
		return SetClock{}, errors.New("request has no time")
	case !s.Passed.IsZero() && (!s.To.IsZero() || s.Back):
		return SetClock{}, errors.New("request says what time it is, and what time has passed: one of them")
	}
	return s, nil
}

// AskClock has the clock service at path set the clock.
func AskClock(ctx context.Context, path string, s SetClock) (ClockSet, error) {
	var answer ClockSet
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return answer, fmt.Errorf("connect to the clock service: %w", err)
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	line, err := json.Marshal(s)
	if err == nil {
		_, err = conn.Write(append(line, '\n'))
	}
	if err == nil {
		line, err = bufio.NewReader(conn).ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, &answer)
	}
	if err != nil {
		return answer, fmt.Errorf("ask the clock service: %w", err)
	}
	if answer.BeforeSaved {
		return answer, beforeSaved(answer.Error)
	}
	if answer.Error != "" {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}

// ErrBeforeSaved means that the time is before the last one that the node saved, or before
// a certificate of the fleet begins, which SetClock.Back allows.
var ErrBeforeSaved = errors.New("before the last time that the node saved")

// beforeSaved is ErrBeforeSaved in the service's words.
type beforeSaved string

func (b beforeSaved) Error() string        { return string(b) }
func (b beforeSaved) Is(target error) bool { return target == ErrBeforeSaved }
