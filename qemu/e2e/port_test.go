package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"time"
)

// testSocket is the second serial port in the folder of a VM that has one. QEMU
// runs in that folder.
const testSocket = "test.sock"

// testPort is what QEMU is told about it. The machine of arm64 has no place for a
// second port but on its PCI bus.
func testPort(arch string) []string {
	device := []string{"-serial", "chardev:test"}
	if arch == "arm64" {
		device = []string{"-device", "pci-serial,chardev=test"}
	}
	return append([]string{"-chardev", "socket,id=test,path=" + testSocket + ",server=on,wait=off"}, device...)
}

// portOpen is what the console says once the node listens on the test port.
var portOpen = regexp.MustCompile(`kogge: test port open`)

// command is a line to the test port, as init/testport.go reads it.
type command struct {
	ID     int      `json:"id"`
	Op     string   `json:"op"`
	Args   []string `json:"args"`
	Signal int      `json:"signal"`
}

// silent are the operations after which nobody may be left to answer.
var silent = map[string]bool{"pause": true, "panic": true}

// repeatable are the operations that may be asked for again when an answer is
// lost, as it is when the node restarts.
var repeatable = map[string]bool{
	"read": true, "list": true, "statfs": true, "find": true, "status": true, "date": true, "sync": true, "memory": true,
}

// ask sends a command to the test port and returns its answer, once the node has
// opened the port.
func (n *node) ask(ctx context.Context, c command) (string, error) {
	if !n.test {
		return "", errors.New("the VM was not started with -test")
	}
	if _, err := n.vm.Console().WaitLine(ctx, portOpen); err != nil {
		return "", err
	}
	for {
		try, cancel := ctx, context.CancelFunc(func() {})
		if repeatable[c.Op] {
			try, cancel = context.WithTimeout(ctx, 20*time.Second)
		}
		text, err := n.askOnce(try, c)
		again := try.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || !again {
			return text, err
		}
	}
}

func (n *node) askOnce(ctx context.Context, c command) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(n.dir, testSocket))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	n.asked++
	c.ID = n.asked
	line, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	// The first newline ends what somebody before us may have begun.
	if _, err := fmt.Fprintf(conn, "\n%s\n", line); err != nil {
		return "", err
	}
	if silent[c.Op] {
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			return "", err
		}
		// QEMU hangs up when it has handed the last byte to the port.
		_, err := io.Copy(io.Discard, conn)
		return "", err
	}
	answers := bufio.NewScanner(conn)
	answers.Buffer(nil, 16<<20)
	for answers.Scan() {
		var answer struct {
			ID    int    `json:"id"`
			Text  string `json:"text"`
			Error string `json:"error"`
		}
		if json.Unmarshal(answers.Bytes(), &answer) != nil || answer.ID != c.ID {
			continue // of somebody before us
		}
		if answer.Error != "" {
			return answer.Text, fmt.Errorf("test port: %s: %s", c.Op, answer.Error)
		}
		return answer.Text, nil
	}
	err = answers.Err()
	if err == nil {
		err = errors.New("QEMU hung up")
	}
	return "", fmt.Errorf("test port: %s: %w", c.Op, err)
}

// askUntil asks until the answer matches, and returns it.
func (n *node) askUntil(ctx context.Context, want string, c command) (string, error) {
	re, err := regexp.Compile(want)
	if err != nil {
		return "", err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	last := "no answer"
	for {
		text, err := n.ask(ctx, c)
		if err == nil && re.MatchString(text) {
			return text, nil
		}
		if ctx.Err() == nil {
			if last = text; err != nil {
				last = err.Error()
			}
		}
		select {
		case <-tick.C:
		case <-n.vm.Done():
			return "", fmt.Errorf("wait for answer %q: QEMU ended (last answer: %s)", want, last)
		case <-ctx.Done():
			return "", fmt.Errorf("wait for answer %q: %w (last answer: %s)", want, context.Cause(ctx), last)
		}
	}
}
