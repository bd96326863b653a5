package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"kogge.example/init/shutdown"
	"kogge.example/update/durable"
)

// bootsFile is the history of boots: a line when the node comes up, and one when it
// goes down in order. One that comes up twice in a row lost its power in between, or
// was reset.
const bootsFile = ownDir + "/boots"

// maxBoots is how many lines of it are kept.
const maxBoots = 400

func (n *node) noteBoot() error {
	kernel := strings.TrimSpace(string(readOptional("/proc/sys/kernel/osrelease")))
	text := fmt.Sprintf("up, slot %s, release %s, board %s, kernel %s", n.boot.Slot, n.boot.Version, n.boot.Board, kernel)
	if n.boot.Trial {
		text += ", on trial"
	}
	return n.note(text)
}

// noteEnd notes why the node goes down. Nobody is left to hear that this did not work.
func (n *node) noteEnd(how shutdown.How, err error) {
	text := "down, " + string(how)
	if err != nil {
		text += ": " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	_ = n.note(text)
}

// note adds a line to the history. After a power cut it has the line or not.
func (n *node) note(text string) error {
	if !n.persist {
		return nil
	}
	return durable.Replace(bootsFile, addLine(readOptional(bootsFile), fmt.Sprintf("%s %s", time.Now().UTC().Format(time.RFC3339), text)), 0o600)
}

// addLine adds a line to the last ones of a text. What an earlier release left there
// may have any size.
func addLine(text []byte, line string) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	if last := len(lines) - 1; len(lines[last]) == 0 {
		lines = lines[:last]
	} else { // no line, and its end is missing
		lines[last] = append(bytes.Clone(lines[last]), '\n')
	}
	lines = append(lines, []byte(line[:min(len(line), 512)]+"\n"))
	return bytes.Join(lines[max(0, len(lines)-maxBoots):], nil)
}
