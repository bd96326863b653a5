// Command hog is a container that takes all it can get of one thing, for the tests of
// what a node keeps for itself and for other containers.
//
// In come a kind and a folder; out comes a line whenever it is refused more, and it goes
// on asking until it is killed. It needs no rights beyond a container's own, and is
// static, for 64 and for 32 bits.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hogs take a folder to write to, and return what has refused them more.
var hogs = map[string]func(dir string) error{
	"anonymous": anonymous,
	"tmpfs":     func(string) error { return disk("/dev/shm") },
	"dentries":  dentries,
	"deep":      deep,
	"files":     files,
	"inodes":    inodes,
	"disk":      disk,
	"forks":     forks,
	"log":       flood,
	"inotify":   inotify,
	"aio":       aio,
	"terminals": terminals,

	"flows":      flows,
	"neighbours": neighbours,
}

func main() {
	if len(os.Args) != 3 || hogs[os.Args[1]] == nil {
		fmt.Fprintf(os.Stderr, "usage: hog KIND FOLDER; kinds: %s\n", strings.Join(kinds(), " "))
		os.Exit(2)
	}
	if os.Args[1] == "forks" && len(os.Args[2]) == 0 {
		select {} // one of many
	}
	for {
		fmt.Printf("%s: refused: %v\n", os.Args[1], hogs[os.Args[1]](os.Args[2]))
		time.Sleep(time.Second)
	}
}

func kinds() []string {
	var all []string
	for k := range hogs {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// kept is what it has got, and does not give back.
var kept struct {
	memory [][]byte
	files  []int
}

// anonymous touches memory.
func anonymous(string) error {
	for {
		b, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept.memory = append(kept.memory, b)
	}
}

// deep makes folder in folder, each in the one before: a bomb for whoever removes it. It
// ends with the level that os.Args has none of.
func deep(dir string) error { return chain(dir, 560_000) }

// dentries holds the last of such folders: the kernel keeps all of them in memory.
func dentries(dir string) error { return chain(dir, 1<<40) }

func chain(dir string, levels int64) error {
	if kept.files == nil {
		fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		kept.files = []int{fd}
	}
	for n := range levels {
		if err := unix.Mkdirat(kept.files[0], "d", 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("level %d: %w", n, err)
		}
		fd, err := unix.Openat(kept.files[0], "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("level %d: %w", n, err)
		}
		unix.Close(kept.files[0])
		kept.files[0] = fd
	}
	fmt.Printf("%d levels\n", levels)
	select {}
}

// files opens files in as many processes as it takes.
func files(dir string) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == unix.EMFILE {
			fmt.Printf("%d files are open, and the next process goes on\n", len(kept.files))
			cmd := exec.Command("/proc/self/exe", "files", dir)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			return errors.Join(cmd.Run(), unix.EMFILE)
		}
		if err != nil {
			return fmt.Errorf("after %d files: %w", len(kept.files), err)
		}
		kept.files = append(kept.files, fd)
	}
}

// inodes makes empty files.
func inodes(dir string) error {
	for n := 0; ; n++ {
		folder := filepath.Join(dir, fmt.Sprint(os.Getpid(), ".", n/1000))
		if n%1000 == 0 {
			if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("after %d files: %w", n, err)
			}
		}
		f, err := os.Create(filepath.Join(folder, fmt.Sprint(n)))
		if err != nil {
			return fmt.Errorf("after %d files: %w", n, err)
		}
		f.Close()
	}
}

// disk writes one large file after the other.
func disk(dir string) error {
	block := make([]byte, 1<<20)
	for n := 0; ; n++ {
		f, err := os.CreateTemp(dir, "hog")
		if err != nil {
			return fmt.Errorf("file %d: %w", n, err)
		}
		for range 64 {
			if _, err = f.Write(block); err != nil {
				break
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("file %d: %w", n, err)
		}
	}
}

// forks starts processes that only are there.
func forks(string) error {
	for n := 0; ; n++ {
		if err := exec.Command("/proc/self/exe", "forks", "").Start(); err != nil {
			return fmt.Errorf("process %d: %w", n, err)
		}
	}
}

// flood writes without end.
func flood(string) error {
	line := []byte(strings.Repeat("all the same ", 300) + "\n")
	for {
		if _, err := os.Stdout.Write(line); err != nil {
			return err
		}
	}
}

// inotify takes instances, of which the kernel counts those of all containers together.
func inotify(dir string) error {
	for n := 0; ; n++ {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return fmt.Errorf("instance %d: %w", n, err)
		}
		kept.files = append(kept.files, fd)
		if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE); err != nil {
			return fmt.Errorf("watch %d: %w", n, err)
		}
	}
}

// terminals opens them.
func terminals(string) error {
	for n := 0; ; n++ {
		fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("terminal %d: %w", n, err)
		}
		kept.files = append(kept.files, fd)
	}
}
