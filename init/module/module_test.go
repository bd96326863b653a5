package module

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// folder writes the three files of depmod and returns their folder.
func folder(t testing.TB, dep, alias, softdep string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"modules.dep": dep, "modules.alias": alias, "modules.softdep": softdep} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// open returns an index whose kernel notes what is loaded, in order, and refuses
// the files named in broken.
func open(t testing.TB, dep, alias, softdep string, broken ...string) (*Index, *[]string) {
	t.Helper()
	dir := folder(t, dep, alias, softdep)
	x, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	x.insert = func(file string) error {
		name, ok := strings.CutPrefix(file, dir+"/")
		if !ok {
			t.Errorf("%s is not in the folder", file)
		}
		if slices.Contains(broken, name) {
			return errors.New("unknown symbol in " + name)
		}
		order = append(order, nameOf(name))
		return nil
	}
	x.loaded = func(name string) bool { return slices.Contains(order, name) }
	return x, &order
}

const (
	exampleDep = `# a comment
kernel/drivers/net/virtio_net.ko: kernel/net/net_failover.ko kernel/net/failover.ko
kernel/net/net_failover.ko: kernel/net/failover.ko
kernel/net/failover.ko:
kernel/sound/snd-hda-intel.ko:
kernel/drivers/ahci.ko:
kernel/drivers/button.ko:
kernel/drivers/dmi-quirk.ko:
kernel/fs/ext4.ko:
kernel/misc/char_dev.ko:
`
	exampleAlias = `# Aliases extracted from modules themselves.
alias virtio:d00000001v* virtio_net
alias pci:v00008086d00002922sv*sd*bc*sc*i* ahci
alias pci:v*d*sv*sd*bc01sc06i01* ahci
alias pci:v00008086d0000[0-1]*sv*sd*bc*sc*i* snd_hda_intel
alias pci:v*d*sv*sd*bc04sc03i00* snd-hda-intel
alias acpi*:PNP0C0C:* button
alias acpi*:LNXPWRBN:* button
alias dmi*:svnExample:pnBoard* dmi_quirk
alias fs-ext4 ext4
alias ext3 ext4
alias char-major-10-* char_dev
alias platform:my-device char_dev
alias platform:gone not_in_this_folder
alias usb:v[ broken_pattern
`
)

func TestResolve(t *testing.T) {
	x, _ := open(t, exampleDep, exampleAlias, "")
	for request, want := range map[string]string{
		// Names, with either dash.
		"virtio_net":    "virtio_net",
		"virtio-net":    "virtio_net",
		"snd-hda-intel": "snd_hda_intel",
		"snd_hda_intel": "snd_hda_intel",
		"failover":      "failover",
		// Exact aliases.
		"fs-ext4":            "ext4",
		"fs_ext4":            "ext4",
		"ext3":               "ext4",
		"platform:my-device": "char_dev",
		"platform:my_device": "char_dev",
		// Patterns.
		"virtio:d00000001v00001AF4":                             "virtio_net",
		"virtio:d00000002v00001AF4":                             "",
		"pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01": "ahci", // by two patterns, once
		"pci:v00001234d00000001sv00000000sd00000000bc04sc03i00": "snd_hda_intel",
		"pci:v00008086d00001234sv00001AF4sd00001100bc01sc06i01": "ahci snd_hda_intel",
		"char-major-10-229":                                     "char_dev",
		"acpi:PNP0C0C:":                                         "button",
		"acpi:LNXPWRBN:LNXSYBUS:":                               "button",
		"acpi_device:PNP0C0C:x":                                 "button",
		"dmi:svnExample:pnBoardA/B2:rvr1.0":                     "dmi_quirk", // a slash in a product's name
		"dmi:bvnX:svnOther:pnBoard":                             "",
		"platform:gone":                                         "", // its module is not here
		"usb:v[":                                                "",
		"":                                                      "",
		":":                                                     "",
		"*":                                                     "",
		"no_such_module":                                        "",
		"pci:":                                                  "",
		"acpi*:PNP0C0C:*":                                       "button",
		strings.Repeat("pci:", 10000):                           "",
		"kernel/drivers/ahci.ko":                                "",
		"ahci.ko":                                               "",
		"of:NdisplayT(null)Cexample,display":                    "",
		"pci:v00008086d00002922sv00001AF4sd00001100bc02sc00i00foo": "ahci",
	} {
		if got := strings.Join(x.Resolve(request), " "); got != want {
			t.Errorf("%.80q: %q, want %q", request, got, want)
		}
	}
}

func TestLoadOrder(t *testing.T) {
	const dep = `a.ko:
b.ko: a.ko
c.ko: b.ko a.ko
soft.ko: a.ko
needs-soft.ko:
above.ko: needs-soft.ko
left.ko:
right.ko:
one.ko: two.ko
two.ko: one.ko
hole.ko: gone.ko
`
	const soft = `softdep needs-soft pre: soft platform:unknown nothing post: c
softdep left pre: right
softdep right pre: left
softdep c post: left
`
	const alias = "alias pci:v1* c\nalias pci:v1d2* left\nalias pci:v9* one\n"
	for _, c := range []struct {
		request, broken, want, err string
	}{
		{request: "a", want: "a"},
		{request: "c", want: "a b c"},
		{request: "needs_soft", want: "a soft needs_soft"},
		{request: "above", want: "a soft needs_soft above"}, // the soft dependency of a dependency
		{request: "left", want: "right left"},
		{request: "right", want: "left right"},
		{request: "one", want: "two one"}, // a circle that no depmod writes
		{request: "pci:v1d2", want: "a b c right left"},
		{request: "pci:v1d2", broken: "b.ko", want: "a right left", err: "unknown symbol in b.ko"},
		{request: "c", broken: "a.ko", err: "unknown symbol in a.ko"},
		{request: "needs_soft", broken: "soft.ko", want: "a needs_soft"}, // does without
		{request: "hole", err: "module gone does not exist"},
		{request: "pci:v2", want: ""},
	} {
		x, order := open(t, dep, alias, soft, c.broken)
		found, err := x.Load(c.request)
		if got := strings.Join(*order, " "); got != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s without %q: loaded %q, %v, want %q", c.request, c.broken, got, err, c.want)
		}
		if found != (c.request != "pci:v2") {
			t.Errorf("%s: found %v", c.request, found)
		}
		// Another time there is nothing to do.
		if n := len(*order); c.err == "" {
			if _, err := x.Load(c.request); err != nil || len(*order) != n {
				t.Errorf("%s again: loaded %v, %v", c.request, (*order)[n:], err)
			}
		}
	}
}

func TestLoadAll(t *testing.T) {
	x, order := open(t, "a.ko:\nb.ko:\nc.ko:\n", "", "", "b.ko")
	err := x.LoadAll("a", "nothing", "b", "c")
	if got := strings.Join(*order, " "); got != "a c" {
		t.Errorf("loaded %q", got)
	}
	for _, want := range []string{"module nothing does not exist", "unknown symbol in b.ko"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

// TestInsert gives the kernel what is no module: it says so, and nothing happens.
func TestInsert(t *testing.T) {
	x, err := Open(folder(t, "bad.ko:\ngone.ko:\n", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(x.dir, "bad.ko"), []byte("no module"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Load("bad"); err == nil || !strings.Contains(err.Error(), "module bad.ko: ") {
		t.Errorf("a text as module: %v", err)
	}
	if _, err := x.Load("gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(t.TempDir()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "modules.") {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := Open(folder(t, "", strings.Repeat("x", 1<<20), "")); err == nil || !strings.Contains(err.Error(), "modules.alias") {
		t.Errorf("a line without end: %v", err)
	}
	dir, err := Release()
	if err != nil || !strings.HasPrefix(dir, "/lib/modules/") || strings.ContainsRune(dir, 0) {
		t.Errorf("release %q, %v", dir, err)
	}
}

// TestColdplug walks devices: each alias once, whatever else lies there.
func TestColdplug(t *testing.T) {
	sys := t.TempDir()
	for name, text := range map[string]string{
		"devices/pci0/00:01/modalias":             "virtio:d00000001v00001AF4\n",
		"devices/pci0/00:02/modalias":             "virtio:d00000001v00001AF4\n",
		"bus/acpi/devices/LNXSYSTM:00/modalias":   "acpi:LNXPWRBN:\n",
		"bus/acpi/devices/empty/modalias":         "\n",
		"bus/platform/devices/button":             "modalias",
		"bus/acpi/devices/folder/modalias/uevent": "MODALIAS=fs-ext4",
		"devices/system/cpu/modalias":             "cpu:type:x86,ven0000\n",
		"devices/nobody's/modalias":               "fs-ext4\n",
		"class/dmi/version":                       "3",
	} {
		file := filepath.Join(sys, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	// As in sysfs, the lists are of links.
	for link, device := range map[string]string{"bus/virtio/devices/virtio0": "00:01", "class/net/eth0": "00:02"} {
		file := filepath.Join(sys, link)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.Symlink(filepath.Join(sys, "devices/pci0", device), file)); err != nil {
			t.Fatal(err)
		}
	}
	x, order := open(t, exampleDep, exampleAlias+"alias cpu:type:x86,* char_dev\n", "", "kernel/drivers/button.ko")
	err := x.coldplug(sys)
	if got := strings.Join(*order, " "); got != "failover net_failover virtio_net char_dev" {
		t.Errorf("loaded %q", got)
	}
	if err == nil || strings.Count(err.Error(), "button.ko") != 1 {
		t.Errorf("error %v", err)
	}
	if err := x.coldplug(filepath.Join(sys, "gone")); err != nil {
		t.Errorf("without devices: %v", err)
	}
}

// TestShelves compares the lists of this computer with all its devices.
func TestShelves(t *testing.T) {
	listed, there := map[string]bool{}, map[string]bool{}
	for _, shelf := range shelves {
		files, err := filepath.Glob(filepath.Join("/sys", shelf, "*/modalias"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if data, err := os.ReadFile(f); err == nil {
				listed[string(data)] = true
			}
		}
	}
	err := filepath.WalkDir("/sys/devices", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "modalias" {
			if data, err := os.ReadFile(p); err == nil {
				there[string(data)] = true
			}
		}
		return nil
	})
	if diff := cmp.Diff(there, listed); err != nil || diff != "" {
		t.Errorf("devices that are there and those on the lists (%v):\n%s", err, diff)
	}
}

func TestParseEvent(t *testing.T) {
	for _, c := range []struct {
		msg  string
		want Event
	}{
		{"add@/devices/x\x00ACTION=add\x00DEVPATH=/devices/x\x00SUBSYSTEM=pci\x00MODALIAS=pci:v1\x00SEQNUM=7\x00",
			Event{"add", "pci:v1", "/devices/x"}},
		{"remove@/devices/x\x00ACTION=remove\x00DEVPATH=/devices/x", Event{"remove", "", "/devices/x"}},
		{"ACTION=add\x00MODALIAS=first field is no field", Event{Modalias: "first field is no field"}},
		{"add@/x\x00MODALIAS=a=b\x00ACTION\x00=\x00\x00", Event{Modalias: "a=b"}},
		{"libudev\x00\xfe\xed\xca\xfe", Event{}},
		{"", Event{}},
	} {
		if got := ParseEvent([]byte(c.msg)); got != c.want {
			t.Errorf("%q: %+v", c.msg, got)
		}
	}
}

// TestServeEnds closes the stream of events when it is no longer wanted.
func TestServeEnds(t *testing.T) {
	e, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	x, _ := open(t, "", "", "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); e.Serve(ctx, x, func(string) {}) }()
	cancel()
	<-done
}

func FuzzParseEvent(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00ACTION=add\x00DEVPATH=/devices/x\x00MODALIAS=pci:v1\x00"))
	f.Add([]byte("\x00\x00=\x00MODALIAS=\x00ACTION"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		ev := ParseEvent(msg)
		for _, s := range []string{ev.Action, ev.Modalias, ev.DevPath} {
			if strings.ContainsRune(s, 0) {
				t.Errorf("%q goes beyond its field", s)
			}
		}
	})
}

// FuzzOpen reads anything as the files of depmod. Whatever they say, nothing
// outside of what modules.dep lists is loaded, nothing twice, and it ends.
func FuzzOpen(f *testing.F) {
	f.Add(exampleDep, exampleAlias, "softdep ahci pre: ext4 button\n", "pci:v00008086d00002922sv*sd*bc*sc*i*")
	f.Add(":\n: :\na.ko\n/: /\n", "alias\nalias a\nalias * *\nalias a b c\n", "softdep\nsoftdep : :\nsoftdep a pre:\n", "")
	f.Add("a.ko: a.ko\n", "alias [] a\nalias [^ a\nalias \\ a\n", "softdep a pre: a\n", "[")
	f.Add("a.ko: b.ko\nb.ko: a.ko\n", "alias :* a\nalias *:x b\n", "softdep a pre: b\nsoftdep b pre: a\n", ":x")
	f.Fuzz(func(t *testing.T, dep, alias, softdep, request string) {
		x := newIndex("/modules")
		for text, add := range map[string]func(string){dep: x.addDep, alias: x.addAlias, softdep: x.addSoftdep} {
			if eachLine(strings.NewReader(text), add) != nil {
				return // a line too long
			}
		}
		listed := map[string]bool{}
		for _, file := range x.files {
			listed[filepath.Join(x.dir, file)] = true
		}
		done := map[string]bool{}
		x.loaded = func(string) bool { return false } // the kernel shows nothing
		x.insert = func(file string) error {
			if !listed[file] || done[file] {
				t.Errorf("load of %q: listed %v, done %v", file, listed[file], done[file])
			}
			done[file] = true
			return nil
		}
		for _, name := range x.Resolve(request) {
			if err := x.load(name, map[string]bool{}); err == nil && !done[filepath.Join(x.dir, x.files[name])] {
				t.Errorf("%q is not loaded", name)
			}
			clear(done)
		}
	})
}

// BenchmarkResolve looks up the devices of a large machine among all aliases of a
// distribution's kernel.
func BenchmarkResolve(b *testing.B) {
	var dep, alias strings.Builder
	for i := range 15000 {
		fmt.Fprintf(&dep, "m%d.ko:\n", i)
		fmt.Fprintf(&alias, "alias %s:v%08Xd%08Xsv*sd*bc*sc*i* m%d\n", []string{"pci", "usb", "acpi*", "of"}[i%4], i, i, i)
	}
	x, err := Open(folder(b, dep.String(), alias.String(), ""))
	if err != nil {
		b.Fatal(err)
	}
	var requests []string
	for i := range 200 {
		requests = append(requests, fmt.Sprintf("pci:v%08Xd%08Xsv00001AF4sd00001100bc02sc00i00", i*4, i*4))
	}
	for b.Loop() {
		for _, r := range requests {
			if len(x.Resolve(r)) != 1 {
				b.Fatal(r)
			}
		}
	}
}
