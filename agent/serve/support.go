package serve

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/logs"
	"kogge.example/agent/machine"
	"kogge.example/agent/redaction"
	"kogge.example/agent/sealed"
	"kogge.example/agent/wanted"
	"kogge.example/init/control"
	"kogge.example/update/cmdline"
	"kogge.example/update/osrelease"
)

// Bounds of an archive: of a file in it and of all together, in bytes, and of the time
// to pack it.
const (
	maxEntry     = 1 << 20
	maxArchive   = 32 << 20
	maxSpool     = 256 << 10 // of a log of before
	supportLimit = 5 * time.Minute
)

// errPacking is the answer while another one packs: one archive takes a core, and
// several MiB of memory.
var errPacking = errors.New("the node is making an archive for somebody else: try again in a minute")

func (s *upkeepService) Support(ctx context.Context, r *connect.Request[apiv1.SupportRequest], out *connect.ServerStream[apiv1.SupportPart]) error {
	if !s.packing.TryLock() {
		return connect.NewError(connect.CodeResourceExhausted, errPacking)
	}
	defer s.packing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, supportLimit)
	defer cancel()
	packed := gzip.NewWriter(&partWriter{send: out.Send})
	p := &packer{ctx: ctx, s: s, tar: tar.NewWriter(packed), now: time.Now()}
	p.pack(r.Msg.Output)
	if err := errors.Join(p.tar.Close(), packed.Close(), ctx.Err()); err != nil {
		return connect.NewError(connect.CodeAborted, err) // the caller went away, or is too slow
	}
	return nil
}

// partWriter sends what is written as messages. gzip writes in large pieces.
type partWriter struct {
	send func(*apiv1.SupportPart) error
}

func (w *partWriter) Write(b []byte) (int, error) {
	for part := range slices.Chunk(b, api.PartSize) {
		if err := w.send(&apiv1.SupportPart{Part: part}); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// packer packs one archive, file by file; one file is in memory at a time.
type packer struct {
	ctx    context.Context
	s      *upkeepService
	tar    *tar.Writer
	now    time.Time
	size   int64             // of what is packed
	mask   *strings.Replacer // of the secrets that the settings have
	errors bytes.Buffer      // what could not be packed, and why
}

const aboutSupport = `A Kogge node made this archive to help find out what is wrong with it.

config/    node.yaml and the applied Compose files: keys, and the values that are
           known to be harmless. Every other value, and every comment, is hidden.
logs/      the logs of the node's services, since it booted and before
output/    the output of the containers (only with --output): it may hold secrets
boot/      which slot runs, the history of boots, what is staged, armed and failed,
                                        a kernel's last words and the log of the last trial
kernel.log, network/, system/           what the kernel and the node's services know
errors.txt                              what is missing from the archive, and why

Values that config/ hides are hidden in all other files as well.
`

// pack writes all files. What cannot be read is noted: the rest is needed all the more.
func (p *packer) pack(output bool) {
	m := p.s.machine
	texts := p.settings()
	p.text("about.txt", []byte(aboutSupport))
	for _, t := range texts {
		p.text(t.name, t.content)
	}
	status := m.Status(p.ctx)
	p.message("status.json", status)
	if clock, err := p.s.GetTime(p.ctx, nil); p.noted("time.json", err) {
		p.message("time.json", clock.Msg)
	}
	p.lists()
	p.settingsState()
	for _, one := range status.Services {
		p.write("logs/"+one.Name+".log", func(w io.Writer) error {
			return p.ask(func(c *control.Client) error {
				return c.Logs(p.ctx, one.Name, 0, false, func(line string) { fmt.Fprintln(w, line) })
			})
		})
	}
	p.glob("logs/before/", maxSpool, filepath.Join(m.StateDir(), "log", "*.log*"))
	p.write("kernel.log", func(w io.Writer) error {
		return logs.Kernel(p.ctx, m.KernelLog(), false, &logs.Batch{Send: func(l *apiv1.LogLines) error {
			_, err := fmt.Fprintln(w, strings.Join(l.Lines, "\n"))
			return err
		}})
	})
	p.glob("boot/", maxEntry, m.RunFile(control.BootFile), osrelease.File, cmdline.File, "/sys/fs/pstore/*", m.RunFile(control.AssessmentFile),
		filepath.Join(m.StateDir(), "kogge", "update", "*.json*"), filepath.Join(m.StateDir(), "kogge", "update", "trial.log*"), filepath.Join(m.StateDir(), "kogge", "update", "panic.txt"),
		"/sys/firmware/efi/efivars/Loader*")
	p.glob("network/", maxEntry, m.RunFile(control.NetworkFile), m.RunFile("etc/resolv.conf"), m.RunFile("etc/hosts"), "/proc/net/dev", "/proc/net/route",
		"/proc/net/ipv6_route", "/proc/net/if_inet6", "/proc/net/arp", "/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/sockstat")
	p.glob("system/", maxEntry, m.RunFile(control.ClockFile), "/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/stat", "/proc/vmstat", "/proc/mounts",
		"/proc/partitions", "/proc/diskstats", "/proc/modules", "/proc/version")
	p.glob("system/pressure/", maxEntry, "/proc/pressure/*")
	p.write("system/processes.txt", processes)
	p.write("system/disk.txt", func(w io.Writer) error { return usage(p.ctx, w, m.StateDir()) })
	if output {
		p.glob("output/", maxSpool, filepath.Join(p.s.output, "*.log*"))
	}
	if p.errors.Len() > 0 {
		p.add("errors.txt", p.errors.Bytes()) // even if the archive is full
	}
}

type named struct {
	name    string
	content []byte
}

// settings reads node.yaml and the projects, without their secrets, and remembers
// these for all that is packed.
func (p *packer) settings() []named {
	m := p.s.machine
	files := []string{m.RunFile("node.yaml"), filepath.Join(m.StateDir(), "kogge", "node.yaml")}
	names := []string{"config/node.yaml", "config/node.yaml.kept"}
	projects, err := filepath.Glob(filepath.Join(m.StateDir(), "projects", "*.yaml"))
	p.noted("projects", err)
	for _, file := range projects {
		files, names = append(files, file), append(names, "config/projects/"+filepath.Base(file))
	}
	var texts []named
	var hidden []string
	for i, file := range files {
		text, err := readStart(file, 2*maxEntry)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && i >= 2 {
			text, err = wanted.Text(text, sealed.Key(filepath.Join(m.StateDir(), wanted.KeyFile)))
		}
		shown := redaction.Text{}
		if err == nil && i < 2 {
			shown, err = redaction.Node(text)
		} else if err == nil {
			shown, err = redaction.Compose(text)
		}
		if p.noted(names[i], err) {
			texts = append(texts, named{names[i], shown.Shown})
			hidden = append(hidden, shown.Hidden...)
		}
	}
	p.mask = redaction.Mask(hidden)
	return texts
}

// lists are containers, images and projects, as far as they are known by now.
func (p *packer) lists() {
	if keeper := p.s.containers(); keeper != nil {
		status := keeper.Snapshot()
		list := &apiv1.ListResponse{Trouble: status.Trouble}
		for _, u := range status.All() {
			c := container(u)
			c.HealthOutput = "" // whatever a program printed
			list.Containers = append(list.Containers, c)
		}
		p.message("containers.json", list)
	}
	if images := p.s.images(); images != nil {
		list, err := (&imageService{images: p.s.images}).ListImages(p.ctx, nil)
		if p.noted("images.json", err) {
			p.message("images.json", list.Msg)
		}
	}
}

// settingsState says whether a change of node.yaml is being tried.
func (p *packer) settingsState() {
	p.write("config/state.json", func(w io.Writer) error {
		return p.ask(func(c *control.Client) error {
			state, err := c.Config(p.ctx)
			if err != nil {
				return err
			}
			return json.NewEncoder(w).Encode(state)
		})
	})
}

// ask asks PID 1.
func (p *packer) ask(what func(*control.Client) error) error {
	c, err := p.s.machine.Pid1(p.ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return what(c)
}

// noted notes an error, and says whether there was none.
func (p *packer) noted(name string, err error) bool {
	if err != nil && p.errors.Len() < maxSpool {
		fmt.Fprintf(&p.errors, "%s: %v\n", name, err)
	}
	return err == nil
}

// message packs an answer of the API.
func (p *packer) message(name string, m proto.Message) {
	text, err := protojson.MarshalOptions{Multiline: true}.Marshal(m)
	if p.noted(name, err) {
		p.text(name, append(text, '\n'))
	}
}

// glob packs the ends of files below folder; a pattern without files is none.
func (p *packer) glob(folder string, most int64, patterns ...string) {
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		p.noted(pattern, err)
		for _, file := range files {
			p.write(folder+filepath.Base(file), func(w io.Writer) error {
				text, err := readEnd(file, most)
				if err == nil {
					_, err = w.Write(text)
				}
				return err
			})
		}
	}
}

// write packs what a function writes; what is beyond the limit is left out.
func (p *packer) write(name string, what func(io.Writer) error) {
	if p.ctx.Err() != nil {
		return
	}
	var b limited
	p.noted(name, what(&b))
	if b.Len() > 0 {
		p.text(name, b.Bytes())
	}
	if b.left > 0 {
		p.noted(name, fmt.Errorf("%d bytes were left out", b.left))
	}
}

// limited keeps the first maxEntry bytes.
type limited struct {
	bytes.Buffer
	left int64 // out
}

func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), maxEntry-l.Len())
	l.Buffer.Write(b[:n])
	l.left += int64(len(b) - n)
	return len(b), nil
}

// text packs one file, if there is room.
func (p *packer) text(name string, content []byte) {
	if p.size+int64(len(content)) > maxArchive {
		p.noted(name, errors.New("left out: the archive is full"))
		return
	}
	p.size += int64(len(content))
	p.add(name, content)
}

// add packs one file, its secrets hidden.
func (p *packer) add(name string, content []byte) {
	content = []byte(p.mask.Replace(string(content)))
	err := p.tar.WriteHeader(&tar.Header{Name: "support/" + name, Mode: 0o600, Size: int64(len(content)), ModTime: p.now})
	if err == nil {
		_, err = p.tar.Write(content)
	}
	p.noted(name, err) // the caller has gone: closing the archive will say so
}

// readStart reads at most so many bytes of a file; more are an error.
func readStart(file string, most int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s has more than %d bytes", file, most)
	}
	return text, err
}

// readEnd reads the last bytes of a file, at most so many, from the beginning of a
// line. Files of /proc have no size, and are read from their beginning.
func readEnd(file string, most int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.IsDir() {
		return nil, err
	}
	cut := info.Size() > most
	if cut {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, most))
	if cut {
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	return text, err
}

// processes writes a line for each process: its command line may have secrets, and is
// left out.
func processes(w io.Writer) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "PID\tPARENT\tSTATE\tRSS KiB\tNAME\tCGROUP")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// 1234 (any name) S 1 … ; the 24th field is the resident size in pages.
		before, rest, ok := bytes.Cut(stat, []byte(" ("))
		end := bytes.LastIndexByte(rest, ')')
		f := bytes.Fields(rest[end+1:])
		if !ok || end < 0 || len(f) < 22 {
			continue
		}
		pages, _ := strconv.ParseInt(string(f[21]), 10, 64)
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", before, f[1], f[0], pages*int64(os.Getpagesize())>>10, rest[:end],
			strings.TrimPrefix(machine.ReadLine("/proc/"+e.Name()+"/cgroup"), "0::"))
	}
	return nil
}

// maxWalk is how many files are counted.
const maxWalk = 200_000

// usage writes how full STATE is, and what takes the room: files and bytes of each
// folder, two levels deep.
func usage(ctx context.Context, w io.Writer, state string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(state, &st); err != nil {
		return err
	}
	fmt.Fprintf(w, "total\t%d bytes\navailable\t%d bytes\ninodes\t%d of %d free\n\nFILES\tKiB\tFOLDER\n",
		st.Blocks*uint64(st.Bsize), st.Bavail*uint64(st.Bsize), st.Ffree, st.Files)
	type sum struct{ files, kib int64 }
	sums := map[string]*sum{}
	var names []string
	count := 0
	err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ctx.Err() // a folder that went away meanwhile is none
		}
		if count++; count > maxWalk {
			return fmt.Errorf("more than %d files: the rest are not counted", maxWalk)
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		rel, _ := filepath.Rel(state, filepath.Dir(path))
		parts := strings.Split(rel, string(filepath.Separator))
		name := filepath.Join(parts[:min(2, len(parts))]...)
		if sums[name] == nil {
			sums[name] = &sum{}
			names = append(names, name)
		}
		sums[name].files++
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sums[name].kib += st.Blocks / 2 // of 512 bytes; a sparse file is smaller than its size
		}
		return nil
	})
	for _, name := range names {
		fmt.Fprintf(w, "%d\t%d\t%s\n", sums[name].files, sums[name].kib, name)
	}
	return err
}
