package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// qemuIO has QEMU's own NBD client carry out commands on a server's socket.
func qemuIO(t *testing.T, sock string, commands ...string) (string, error) {
	t.Helper()
	args := []string{"-f", "raw", "-t", "writeback"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	program, err := exec.LookPath("qemu-io")
	if err != nil {
		t.Fatal("qemu-io not found: install it with: apt-get install qemu-utils")
	}
	out, err := exec.CommandContext(t.Context(), program, append(args, "nbd:unix:"+sock)...).CombinedOutput()
	return string(out), err
}

// socket returns a path short enough for QEMU.
func socket(t *testing.T) string {
	dir, err := os.MkdirTemp("", "nbd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "disk.sock")
}

func serve(t *testing.T, sock string, d *Disk) *Server {
	t.Helper()
	s, err := Serve(sock, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestQEMUReadsAndWrites has a client that we did not write judge the protocol.
func TestQEMUReadsAndWrites(t *testing.T) {
	sock := socket(t)
	d := newDisk(t, 2048)
	s := serve(t, sock, d)
	out, err := qemuIO(t, sock,
		"read -P 46 0 1M", "write -P 65 4k 64k", "flush", "read -P 65 4k 64k", "read -P 46 0 4k",
		"write -f -P 66 512 512", "read -P 66 512 512", "discard 8k 4k", "read -P 0 8k 4k", "write -z 16k 4k", "read -P 0 16k 4k", "length")
	if err != nil || strings.Contains(out, "failed") || !strings.Contains(out, "1 MiB") {
		t.Fatalf("%v\n%s", err, out)
	}
	// A second client, after the first. qemu-io flushes when it leaves.
	if out, err := qemuIO(t, sock, "read -P 65 4k 4k"); err != nil || strings.Contains(out, "failed") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(sock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket after Close: %v", err)
	}
}

// TestCutAfter cuts at the third write: it is in the cache, and not answered.
func TestCutAfter(t *testing.T) {
	sock := socket(t)
	d := newDisk(t, 16)
	s := serve(t, sock, d)
	s.CutAfter(3, 1)
	out, err := qemuIO(t, sock, "write -P 65 0 512", "flush", "write -P 66 512 512", "write -P 67 1024 512", "write -P 68 1536 512")
	if err == nil || !strings.Contains(out, "failed") {
		t.Errorf("the client noticed nothing: %v\n%s", err, out)
	}
	<-s.WasCut()
	if got := text(t, s.State(), 16); got != "ABC............." {
		t.Errorf("after the cut: %s", got)
	}
	if got := text(t, d.AfterCut(0), 16); got != "A..............." {
		t.Errorf("a disk that forgets: %s", got)
	}
	if s.Cut(0) != s.State() {
		t.Error("a second cut gives another state")
	}
	if _, err := net.Dial("unix", sock); err == nil {
		t.Error("a server without power answers")
	}
	// The machine comes back with what the disk held.
	next, err := NewDisk(s.State(), s.State().Size())
	if err != nil {
		t.Fatal(err)
	}
	serve(t, sock, next) // over the dead server's socket
	if out, err := qemuIO(t, sock, "read -P 67 1024 512"); err != nil || strings.Contains(out, "failed") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestFullDisk tells the client that there is no space, not that the disk is broken.
func TestFullDisk(t *testing.T) {
	sock := socket(t)
	d := newDisk(t, 16)
	d.SetLimit(SectorSize)
	serve(t, sock, d)
	if out, _ := qemuIO(t, sock, "write 0 4k"); !strings.Contains(out, "No space left on device") {
		t.Error(out)
	}
}

func TestSockets(t *testing.T) {
	sock := filepath.Join(t.TempDir(), strings.Repeat("long", 20), strings.Repeat("long", 20)+".sock")
	if err := os.Mkdir(filepath.Dir(sock), 0o700); err != nil {
		t.Fatal(err)
	}
	serve(t, sock, newDisk(t, 1))
	if _, err := Serve(sock, newDisk(t, 1)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("two servers on one socket: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Serve(file, newDisk(t, 1)); err == nil {
		t.Error("a socket over a file")
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "precious" {
		t.Errorf("the file: %q, %v", data, err)
	}
}

// session is what a well-behaved client sends; the fuzzer starts from it.
func session(option uint32, commands ...request) []byte {
	var b bytes.Buffer
	send := func(values ...any) {
		for _, v := range values {
			binary.Write(&b, binary.BigEndian, v)
		}
	}
	send(uint32(flagFixed|flagNoZeroes), uint64(magicOption), uint32(99), uint32(2), []byte("??"))
	send(uint64(magicOption), option)
	if option == optGo {
		send(uint32(8), uint32(1), []byte("x"), uint16(1)) // too short for its request: invalid
		send(uint64(magicOption), option, uint32(9), uint32(1), []byte("x"), uint16(1), uint16(infoBlockSize))
	} else {
		send(uint32(0))
	}
	for _, q := range commands {
		send(q)
		if q.Type == cmdWrite {
			send(make([]byte, q.Length))
		}
	}
	return b.Bytes()
}

// pipe is a connection whose client has said everything at once.
type pipe struct {
	io.Reader
	io.Writer
}

func ask(kind uint16, off uint64, n uint32) request {
	return request{Magic: magicAsk, Type: kind, Cookie: 7, Offset: off, Length: n}
}

// TestProtocolErrors wants a client that is out of step hung up on.
func TestProtocolErrors(t *testing.T) {
	good := session(optExportName)
	for what, data := range map[string][]byte{
		"unknown flags":   {0, 0, 0, 8},
		"option magic":    append([]byte{0, 0, 0, 1}, bytes.Repeat([]byte{1}, 16)...),
		"long option":     append(bytes.Clone(good[:16]), 0xff, 0xff, 0xff, 0xff),
		"request magic":   append(bytes.Clone(good), bytes.Repeat([]byte{1}, 28)...),
		"request of 4 GB": session(optGo, ask(cmdRead, 0, 1<<32-1)),
	} {
		s := &Server{Disk: newDisk(t, 4), cutDone: make(chan struct{})}
		if err := s.serve(pipe{bytes.NewReader(data), io.Discard}); !errors.Is(err, errProtocol) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAnswers wants an error code for what cannot be done, and the line kept.
func TestAnswers(t *testing.T) {
	data := session(optExportName, ask(cmdRead, 1, 512), ask(cmdWrite, 1<<63, 512), ask(99, 0, 0), ask(cmdRead, 0, 512), ask(cmdDisc, 0, 0))
	var out bytes.Buffer
	s := &Server{Disk: newDisk(t, 4), cutDone: make(chan struct{})}
	if err := s.serve(pipe{bytes.NewReader(data), &out}); err != nil {
		t.Fatal(err)
	}
	answers := out.Bytes()[out.Len()-3*16-16-512:]
	for i, want := range []uint32{errInvalid, errInvalid, errInvalid, 0} {
		if got := binary.BigEndian.Uint32(answers[i*16+4:]); got != want {
			t.Errorf("answer %d: error %d, want %d", i, got, want)
		}
	}
	if answers[len(answers)-1] != '.' {
		t.Error("no data at the end")
	}
}

// TestCutWhileIdle ends a client that is waiting.
func TestCutWhileIdle(t *testing.T) {
	sock := socket(t)
	s := serve(t, sock, newDisk(t, 4))
	conn, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(conn, make([]byte, 18)); err != nil {
		t.Fatal(err)
	}
	s.Cut(0)
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read from a dead line: %d, %v", n, err)
	}
}

func FuzzServe(f *testing.F) {
	f.Add(session(optGo, ask(cmdWrite, 512, 512), ask(cmdFlush, 0, 0), ask(cmdTrim, 0, 1024), ask(cmdRead, 0, 2048), ask(cmdDisc, 0, 0)))
	f.Add(session(optExportName, ask(cmdRead, 1<<63, 512), ask(9, 0, 0)))
	f.Add(session(optInfo))
	f.Add(session(optAbort))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &Server{Disk: newDisk(t, 8), cutDone: make(chan struct{})}
		s.serve(pipe{bytes.NewReader(data), io.Discard})
	})
}
