// Command prober is, for the test of isolation, a container that tries what no
// container may: host namespaces, devices, the kernel's settings, the node's files.
//
// It runs as any image does, with no setting of its own. Out goes, by its first argument,
//
//	attempts FILE   a table to FILE, an attempt a line; what gets through is in it with
//	                the reason why it may, or as "ALLOWED"
//	rights FILE     what a container got of what only the node's own file allows, to FILE
//	facts FILE      what a container that asked for everything got, to FILE
//	whoami          its effective user, on standard output
//	hang            a line, and then nothing until it is killed
//	command VERB    see [command]
//	eat             ever more memory
//	serve TEXT      TEXT on port 80, until it is told to stop
//	get URL         what is served there, on standard output
//	reach FILE NAME …  what the container knows of others, and reaches of them, to FILE
//	found FILE PATH …  its environment, user and folder, and what each path is, to FILE
//	starts PATH …   a byte more in each file, and exit code 1
//	become PATH …   that program in its place
//	orphan          exit code 7 if process 1 reaps what others left, else 8
//
// No attempt would harm a machine that lets it through.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// attempt is one row.
type attempt struct {
	name string
	try  func() error // nil: it got through
	why  string       // it may, if it does
}

// group is the rows about one thing.
type group struct {
	name     string
	attempts []attempt
}

// contained is what an attempt met instead of a refusal, in words.
type contained string

func (c contained) Error() string { return string(c) }

const whoami = "whoami"

func main() {
	log.SetFlags(0)
	verb, file := "", ""
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	if len(os.Args) > 2 {
		file = os.Args[2]
	}
	if err := os.MkdirAll("/tmp", 0o777); err != nil { // to mount on; the image has nothing but us
		log.Print(err)
	}
	switch verb {
	case "attempts":
		runtime.LockOSThread() // capabilities and namespaces belong to threads
		save(file, table())
	case "rights":
		runtime.LockOSThread()
		save(file, allowed())
	case "facts":
		save(file, facts())
	case whoami:
		fmt.Print(os.Geteuid())
	case "hang":
		fmt.Println("hanging")
		hang()
	case "eat":
		eat()
	case "command":
		command(os.Args[2:])
	case "orphan":
		os.Exit(orphan())
	case "serve":
		serve(file)
	case "get":
		if err := get(file); err != nil {
			log.Fatal(err)
		}
	case "reach":
		save(file, reach(os.Args[3:]))
	case "found":
		save(file, found(os.Args[3:]))
	case "starts":
		for _, path := range os.Args[2:] {
			if err := grow(path); err != nil {
				log.Print(err)
			}
		}
		os.Exit(1)
	case "compat":
		fmt.Print(compat(file))
	case "parent":
		parent()
	case "become":
		log.Fatal(syscall.Exec(file, os.Args[2:], os.Environ()))
	default:
		log.Fatal("usage: prober attempts FILE | facts FILE | rights FILE | whoami | hang | orphan")
	}
}

// save makes the file appear with all of the text; "-" is standard output.
func save(path, text string) {
	if path == "-" {
		fmt.Print(text)
		return
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		log.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		log.Fatal(err)
	}
}

func table() string {
	var b strings.Builder
	for _, g := range []group{identity, namespaces, mounts, devices, kernel, processes, files, cgroups, network} {
		fmt.Fprintf(&b, "%s\n", g.name)
		for _, a := range g.attempts {
			fmt.Fprintf(&b, "  %-58s %s\n", a.name, a.outcome())
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (a attempt) outcome() string {
	err := a.try()
	var told contained
	var errno syscall.Errno
	switch {
	case err == nil && a.why == "":
		return "ALLOWED"
	case err == nil:
		return "allowed: " + a.why
	case errors.As(err, &told):
		return string(told)
	case errors.Is(err, fs.ErrNotExist):
		return "not there"
	case errors.As(err, &errno):
		return "refused (" + unix.ErrnoName(errno) + ")"
	}
	return "refused: " + err.Error()
}

// call is a system call as it is.
func call(number uintptr, args ...uintptr) func() error {
	return func() error {
		var a [6]uintptr
		copy(a[:], args)
		result, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			return errno
		}
		if fd := int(result); fd > 2 {
			unix.Close(fd)
		}
		return nil
	}
}

// write tries to write a text to a file that is there.
func write(path, text string) func() error {
	return func() error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString(text)
		return err
	}
}

// read tries to read something out of a file or list something in a folder. What is
// masked is there and empty, on a kernel that has it.
func read(path string) func() error {
	return func() error {
		if entries, err := os.ReadDir(path); err == nil && len(entries) == 0 {
			return contained("nothing in it")
		} else if err == nil {
			return nil
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return contained("nothing in it")
		}
		if err != nil {
			return err
		}
		defer f.Close()
		if n, _ := f.Read(make([]byte, 16)); n == 0 {
			return contained("nothing in it")
		}
		return nil
	}
}

// line is what a file of one line says.
func line(path string) func() error {
	return func() error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return contained(strings.TrimSpace(string(text)))
	}
}

// field is a line of /proc/self/status.
func field(name string) func() error {
	return func() error {
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if key, value, _ := strings.Cut(line, ":"); key == name {
				return contained(strings.TrimSpace(value))
			}
		}
		return fmt.Errorf("no %s in /proc/self/status", name)
	}
}
