package confine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/update/golden"
)

const mib = 1 << 20

// TestVictim shows who is ended on nodes of some sizes, and when the next look is.
func TestVictim(t *testing.T) {
	small := Shortage{Total: 215 * mib, Limit: 124 * mib}
	middle := Shortage{Total: 1000 * mib, Limit: 811 * mib}
	large := Shortage{Total: 64 << 30, Limit: 64<<30 - 512*mib}
	left := func(s Shortage, used, available int64) Shortage {
		s.Used, s.Available = used*mib, available*mib
		return s
	}
	quiet := []Holding{{Instance: "db", Unread: mib, Objects: 3 * mib}, {Instance: "web", Objects: 2 * mib}}
	sockets := append([]Holding{{Instance: "hog", Unread: 600 * mib, Objects: mib}, {Instance: "second", Unread: 500 * mib, Objects: 40 * mib}}, quiet...)
	lists := append([]Holding{{Instance: "hog", Unread: mib, Objects: 50 * mib}}, quiet...)
	text := ""
	for _, c := range []struct {
		what string
		Shortage
		all []Holding
	}{
		{"no limit is known", Shortage{Total: 1000 * mib, Available: mib}, sockets},
		{"room enough", left(middle, 100, 500), sockets},
		{"no room, by what the containers may have", left(middle, 805, 80), sockets},
		{"no room, and they have little", left(middle, 100, 90), sockets},
		{"the same, and nobody is there", left(middle, 100, 90), nil},
		{"the same, and none holds much", left(middle, 100, 90), quiet},
		{"the same, one has many objects", left(middle, 100, 90), lists},
		{"even less room, one has many objects", left(middle, 100, 40), lists},
		{"even less room, one has too few for that", left(middle, 500, 40), []Holding{{Instance: "db", Objects: 16 * mib}}},
		{"even less room, one has just enough", left(middle, 500, 40), []Holding{{Instance: "db", Objects: 17 * mib}}},
		{"a bit beyond the reserve, one has many objects", left(middle, 750, 40), lists},
		{"a bit beyond the reserve, sockets", left(middle, 700, 90), sockets},
		{"nothing at all is left", left(middle, 811, 0), quiet},
		{"a small node at rest", left(small, 20, 110), quiet},
		{"a small node, all that containers may have", left(small, 122, 12), quiet},
		{"a small node, sockets", left(small, 30, 40), []Holding{{Instance: "hog", Unread: 12 * mib}}},
		{"a small node, few sockets", left(small, 30, 40), []Holding{{Instance: "hog", Unread: 11 * mib}}},
		{"a large node", left(large, 1000, 200), sockets},
		{"a large node, room", left(large, 1000, 300), sockets},
	} {
		instance, why := c.Victim(c.all)
		if (instance == "") != (why == "") || instance != "" && !c.Hidden() {
			t.Errorf("%s: %q because %q", c.what, instance, why)
		}
		if instance == "" {
			instance, why = "nobody", "-"
		}
		text += fmt.Sprintf("%-48s %5d of %5d MiB used, %4d available, next look in %6s: %s\n    %s\n", c.what, c.Used/mib, c.Limit/mib, c.Available/mib, c.Next().Round(time.Millisecond), instance, why)
	}
	golden.Compare(t, "victims.txt", text)
}

// TestHoldings lets a hog fill each kind of socket, and looks at what the kernel tells of it.
func TestHoldings(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("run as root: it makes network namespaces")
	}
	hog := filepath.Join(t.TempDir(), "hog")
	build := exec.Command("go", "build", "-o", hog, "kogge.example/qemu/e2e/hog")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	look := Looker{Proc: "/proc", Cgroups: t.TempDir(), Group: "workload"}
	for kind, least := range map[string]int64{"messages": 10 * mib, "answers": 5 * mib, "echoes": 5 * mib, "halves": mib, "callers": 10 * mib} {
		t.Run(kind, func(t *testing.T) {
			pid := hold(t, hog, kind)
			group := filepath.Join(look.Cgroups, look.Group, kind, "below")
			must(t, os.MkdirAll(group, 0o755))
			must(t, os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Appendln(nil, pid), 0o644))
			must(t, os.WriteFile(filepath.Join(group, "../memory.stat"), []byte("slab_reclaimable 7\nslab_unreclaimable 4096\n"), 0o644))
			defer os.RemoveAll(filepath.Dir(group))
			for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
				all := look.Holdings()
				if len(all) != 1 || all[0].Instance != kind || all[0].Objects != 4096 {
					t.Fatalf("%+v", all)
				}
				if all[0].Unread >= least {
					t.Logf("%s holds %d KiB", kind, all[0].Unread>>10)
					break
				}
				if time.Since(start) > time.Minute {
					t.Fatalf("%s: %d KiB are seen", kind, all[0].Unread>>10)
				}
			}
			if look.Gone(kind) {
				t.Error("gone")
			}
			must(t, os.WriteFile(filepath.Join(group, "cgroup.procs"), nil, 0o644))
			if !look.Gone(kind) {
				t.Error("not gone")
			}
		})
	}
	// What is in this process's own namespace is the node's.
	group := filepath.Join(look.Cgroups, look.Group, "own")
	must(t, os.MkdirAll(group, 0o755))
	must(t, os.MkdirAll(filepath.Join(look.Cgroups, look.Group, ".shims"), 0o755))
	must(t, os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Appendln(nil, os.Getpid()), 0o644))
	if all := look.Holdings(); len(all) != 1 || all[0] != (Holding{Instance: "own"}) {
		t.Errorf("%+v", all)
	}
}

// hold starts a hog in a network namespace of its own, in which it may ping, and has some
// sockets; it ends with the test.
func hold(t *testing.T, hog, kind string) (pid int) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `ulimit -n 64; exec "$@"`, "sh", hog, kind, "/tmp")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	done := make(chan error)
	end := make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked: it ends in the other namespace
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			for file, text := range map[string]string{"ipv4/ping_group_range": "0 2147483647", "core/somaxconn": "200"} {
				if err := os.WriteFile("/proc/sys/net/"+file, []byte(text), 0); err != nil {
					return err
				}
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			lo, err := unix.NewIfreq("lo")
			if err != nil {
				return err
			}
			lo.SetUint16(unix.IFF_UP)
			if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
				return err
			}
			return cmd.Start()
		}()
		<-end
	}()
	t.Cleanup(func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		close(end)
	})
	must(t, <-done)
	return cmd.Process.Pid
}

// TestShortage reads the files of a node, and of one that has not all of them.
func TestShortage(t *testing.T) {
	root := t.TempDir()
	look := Looker{Proc: root, Cgroups: root, Group: "/workload"}
	if got := look.Shortage(); got != (Shortage{}) || got.Hidden() || got.Next() != latest {
		t.Errorf("of nothing: %+v", got)
	}
	must(t, os.Mkdir(filepath.Join(root, "workload"), 0o755))
	for file, text := range map[string]string{
		"meminfo":                 "MemTotal:         219868 kB\nMemFree:            1768 kB\nMemAvailable:      40960 kB\nHugePages_Total:       0\n",
		"workload/memory.max":     "130023424\n",
		"workload/memory.current": "52428800\n",
		"workload/memory.stat":    "anon 1\nactive_file 1048576\ninactive_file 2097152\nslab_reclaimable 4194304\nslab 1\n",
	} {
		must(t, os.WriteFile(filepath.Join(root, file), []byte(text), 0o644))
	}
	want := Shortage{Total: 219868 << 10, Available: 40 * mib, Limit: 124 * mib, Used: 43 * mib}
	if got := look.Shortage(); got != want || !got.Hidden() {
		t.Errorf("%+v, want %+v", got, want)
	}
	must(t, os.WriteFile(filepath.Join(root, "workload/memory.max"), []byte("max\n"), 0o644))
	if got := look.Shortage(); got.Limit != 0 || got.Hidden() {
		t.Errorf("without a limit: %+v", got)
	}
	// The real files of this machine are read without a word.
	if got := (Looker{Proc: "/proc", Cgroups: root}).Shortage(); got.Total < 64*mib || got.Available <= 0 || got.Available > got.Total {
		t.Errorf("of this machine: %+v", got)
	}
}

// TestUnaccepted: of connections count those that wait to be accepted.
func TestUnaccepted(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	row := func(state, queues, inode string) string {
		return "   0: 0100007F:1F90 0100007F:C350 " + state + " " + queues + " 00:00000000 00000000  1000        0 " + inode + " 1 0000000000000000 20 4 30 10 -1\n"
	}
	for text, want := range map[string]int64{
		"": 0, head: 0, head + "\n 0: 1\n": 0,
		head + row("0A", "00000000:00000FA0", "77"):                                0, // the listener: connections
		head + row("01", "00000000:0000EA60", "0"):                                 60000 + acceptable,
		head + row("08", "00000000:0000EA60", "0"):                                 60000 + acceptable, // the other one has closed
		head + row("01", "00000000:0000EA60", "78"):                                0,                  // accepted
		head + row("06", "00000000:00000000", "0"):                                 0,                  // closed
		head + row("04", "0000EA60:00000000", "0"):                                 0,                  // closed here
		head + row("01", "00000000:FFFFFFFFFFFFFFFF", "0") + row("01", "x:y", "0"): 2 * acceptable,
	} {
		if got := queues(unaccepted)(strings.NewReader(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// FuzzTables: whatever a table says, a sum of it is no negative number.
func FuzzTables(f *testing.F) {
	f.Add("sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n000000009d4f33b5 2   7          00000000 425984   512      0     2        0        4\n")
	f.Add("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n 1: 0100007F:0001 00000000:0000 07 00000200:00034000 00:00000000 00000000     0        0 77 2 0000000000000000 0\n")
	f.Add("Rmem Rmem\n1125899906842624 9223372036854775807\n-1 -1\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, table := range tables {
			if n := table.read(strings.NewReader(text)); n < 0 {
				t.Errorf("%s: %d of %q", table.name, n, text)
			}
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
