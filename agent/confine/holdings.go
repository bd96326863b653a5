package confine

import (
	"bufio"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Looker looks at what a node and its containers hold. Cgroups of the kernel's second
// version alone tell that: elsewhere there is no limit.
type Looker struct {
	Proc    string // where proc is mounted
	Cgroups string // where cgroups are
	Group   string // of all containers; that of an instance is below, by its name
}

// Shortage reads how much memory is left. What cannot be read is 0, and there is no limit.
func (l Looker) Shortage() Shortage {
	memory := numbers(filepath.Join(l.Proc, "meminfo"))
	group := filepath.Join(l.Cgroups, l.Group)
	used, stat := whole(filepath.Join(group, "memory.current")), numbers(filepath.Join(group, "memory.stat"))
	return Shortage{
		Total: memory["MemTotal:"] << 10, Available: memory["MemAvailable:"] << 10, Limit: whole(filepath.Join(group, "memory.max")),
		// The same can be freed as MemAvailable counts.
		Used: used - stat["active_file"] - stat["inactive_file"] - stat["slab_reclaimable"],
	}
}

// Holdings reads what each instance holds. The sockets are those of the network namespaces
// in which it has a process, but for this process's own, which is the node's.
func (l Looker) Holdings() (all []Holding) {
	own, _ := namespace(l.Proc, "thread-self") // the first thread may be stuck in a container's
	group := filepath.Join(l.Cgroups, l.Group)
	entries, _ := os.ReadDir(group) // without containers there is none
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") { // the shims
			continue
		}
		h := Holding{Instance: e.Name()}
		h.Objects = numbers(filepath.Join(group, e.Name(), "memory.stat"))["slab_unreclaimable"]
		seen := map[uint64]bool{own: true}
		for _, pid := range processes(filepath.Join(group, e.Name())) {
			if ns, ok := namespace(l.Proc, pid); ok && !seen[ns] {
				seen[ns] = true
				h.Unread += unread(filepath.Join(l.Proc, pid, "net"))
			}
		}
		all = append(all, h)
	}
	return all
}

// namespace is the number of the network namespace of a process that is there.
func namespace(proc, pid string) (uint64, bool) {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(proc, pid, "ns", "net"), &st)
	return st.Ino, err == nil
}

// processes are those of a group and of the groups in it.
func processes(group string) (all []string) {
	_ = filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() { // else it went away meanwhile
			text, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			all = append(all, strings.Fields(string(text))...)
		}
		return nil
	})
	return all
}

// tables are the files of /proc/net that tell what sockets hold and counts as nobody's.
var tables = []struct {
	name string
	read func(io.Reader) int64
}{
	{"netlink", columns("Rmem", "Wmem")}, {"packet", columns("Rmem")}, {"pfkey", columns("Rmem", "Wmem")},
	{"icmp", queues(queued)}, {"icmp6", queues(queued)}, {"raw", queues(queued)}, {"raw6", queues(queued)},
	{"udp", queues(sent)}, {"udp6", queues(sent)}, {"udplite", queues(sent)}, {"udplite6", queues(sent)},
	{"tcp", queues(unaccepted)}, {"tcp6", queues(unaccepted)},
}

// unread sums them up, in the folder net of a process.
func unread(net string) (bytes int64) {
	for _, t := range tables {
		if f, err := os.Open(filepath.Join(net, t.name)); err == nil { // the kernel has not all
			bytes += t.read(f)
			f.Close()
		}
	}
	return bytes
}

// columns reads a table with names above its columns, and sums those with these names:
// decimal numbers of bytes.
func columns(names ...string) func(io.Reader) int64 {
	return func(r io.Reader) (bytes int64) {
		lines := bufio.NewScanner(r)
		lines.Scan()
		head := strings.Fields(lines.Text())
		for lines.Scan() {
			for i, f := range strings.Fields(lines.Text()) {
				for _, name := range names {
					if i < len(head) && head[i] == name {
						bytes += amountOf(f, 10)
					}
				}
			}
		}
		return bytes
	}
}

// socket is a row of a table of an internet protocol.
type socket struct {
	state   string
	out, in int64 // bytes that wait to be sent and to be read
	open    bool  // a file stands for it
}

// queues reads such a table, and sums what count says of each.
//
// Source: get_tcp4_sock in net/ipv4/tcp_ipv4.c and the like in the kernel tree: "sl
// local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode".
func queues(count func(socket) int64) func(io.Reader) int64 {
	return func(r io.Reader) (bytes int64) {
		lines := bufio.NewScanner(r)
		lines.Scan()
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			if len(f) < 10 {
				continue
			}
			if out, in, ok := strings.Cut(f[4], ":"); ok {
				bytes += count(socket{state: f[3], out: amountOf(out, 16), in: amountOf(in, 16), open: f[9] != "0"})
			}
		}
		return bytes
	}
}

func queued(s socket) int64 { return s.out + s.in }

// sent is for UDP: what waits to be read counts as its owner's.
func sent(s socket) int64 { return s.out }

// The states of connections that can wait to be accepted. Others that no file stands for are
// closed, and count.
const established, closeWait = "01", "08"

// acceptable is about what the kernel holds for a connection that nobody has accepted yet,
// beside what waits to be read: all that counts as its owner's only from then on.
const acceptable = 4 << 10

func unaccepted(s socket) int64 {
	if s.open || s.state != established && s.state != closeWait {
		return 0
	}
	return s.in + acceptable
}

// amountOf is a number of bytes; what is none, or more than any memory, is 0.
func amountOf(text string, base int) int64 {
	n, err := strconv.ParseInt(text, base, 64)
	if err != nil || n < 0 || n > 1<<50 {
		return 0
	}
	return n
}

// numbers reads a file with a name and a number in each line.
func numbers(file string) map[string]int64 {
	text, _ := os.ReadFile(file)
	all := make(map[string]int64)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 {
			all[f[0]] = amountOf(f[1], 10)
		}
	}
	return all
}

// whole reads a file with one number; "max" is 0.
func whole(file string) int64 {
	text, _ := os.ReadFile(file)
	return amountOf(strings.TrimSpace(string(text)), 10)
}

// Gone says whether an instance has no process any more.
func (l Looker) Gone(instance string) bool {
	return len(processes(filepath.Join(l.Cgroups, l.Group, instance))) == 0
}
