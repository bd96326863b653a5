package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/cmd/kogge/care"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/golden"
)

// TestOrderGiven prints what operators are told of an order, however the nodes have taken it.
func TestOrderGiven(t *testing.T) {
	off := connect.NewError(connect.CodeUnavailable, errors.New("connection refused"))
	newer := connect.NewError(connect.CodeAborted, errors.New("a newer order about this seat is known"))
	full := fmt.Errorf("%w: %w", care.ErrUnkept, connect.NewError(connect.CodeDataLoss, errors.New("the disk does not keep an order about a seat: no space left on device")))
	told := func(all ...error) (told []operate.Told) {
		for i, err := range all {
			told = append(told, operate.Told{Node: fmt.Sprintf("n%d", i+1), Err: err})
		}
		return told
	}
	var out strings.Builder
	for _, c := range []struct {
		about, what string
		told        []operate.Told
		doubt       error
	}{
		{"all have it", isIsolated, told(nil, nil, nil, nil), nil},
		{"the outcast is off", isIsolated, told(nil, nil, off, nil), nil},
		{"the outcast and another one are off", isIsolated, told(nil, off, off, nil), nil},
		{"it is let back in, and off", "not isolated any more", told(nil, nil, off, nil), nil},
		{"it is away, and off", "away", told(nil, nil, off, nil), nil},
		{"none is in reach", isIsolated, told(off, off, off, off), nil},
		{"one knows a newer order", isIsolated, told(nil, nil, off, newer), fmt.Errorf("node n3: %w: by eve, number 8, and this one has 8", care.ErrNewer)},
		{"one says so and shows none", isIsolated, told(nil, nil, nil, newer), nil},
		{"the outcast says so and shows none", isIsolated, told(nil, nil, newer, nil), nil},
		{"others were isolated meanwhile", isIsolated, told(nil, nil, nil, nil), fmt.Errorf("node n3: %w: 1 is isolated already", care.ErrBeyond)},
		{"one disk is full", isIsolated, told(nil, full, nil, nil), nil},
		{"all disks are full", isIsolated, told(full, full, off, off), nil},
	} {
		text, err := orderGiven("n3", c.what, c.told, c.doubt)
		fmt.Fprintf(&out, "%s\n%s", c.about, indented(text))
		if err != nil {
			fmt.Fprint(&out, indented("error: "+err.Error()+"\n"))
		}
	}
	golden.Compare(t, "ordergiven.txt", out.String())
}

func indented(text string) (all string) {
	for line := range strings.Lines(text) {
		all += "    " + line
	}
	return all
}
