package nodeconfig

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Update says where a node gets releases, and when it may reboot for one.
type Update struct {
	// Window is when the node may reboot into a release whose update left that to it
	// (kogge node update --reboot window): "02:00-04:00", by the clock of Zone, over
	// midnight where it ends before it begins. Default: none, and such an update is
	// refused.
	Window Window `yaml:"window,omitempty"`

	// Days are those on which the window opens, of mon, tue, wed, thu, fri, sat and sun.
	// Default: every day.
	Days []Day `yaml:"days,omitempty,flow"`

	// Zone is a time zone by its name in the IANA database ("Europe/Berlin").
	// Default: UTC.
	Zone string `yaml:"zone,omitempty"`

	// USB says whether the node reads a release from a stick. Default: off.
	USB USB `yaml:"usb,omitempty"`

	// Source is where kogge node update gets the release from when it names none:
	// https://…, the folder of an OCI layout, or a registry's name of it. Default: none.
	Source string `yaml:"source,omitempty"`
}

// Day is a day of the week by its first three letters.
type Day string

// days are those of time.Weekday.
var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Weekday is the day as package time has it.
func (d Day) Weekday() time.Weekday { return time.Weekday(slices.Index(days, string(d))) }

// USB is what a node does with a release on a stick.
type USB string

const (
	USBOff USB = "off" // sticks are never read. The empty value means the same.
	USBAsk USB = "ask" // read when an admin asks for it: kogge node update NODE usb:
)

// Window is a part of the day, from one minute to another; the zero Window is none.
type Window struct{ From, To time.Duration } // since midnight

// String is "02:00-04:00", as in the file; "" for none.
func (w Window) String() string {
	if w.IsZero() {
		return ""
	}
	clock := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60) }
	return clock(w.From) + "-" + clock(w.To)
}

// IsZero says whether there is no window.
func (w Window) IsZero() bool { return w == Window{} }

// MarshalYAML writes the window as the file has it.
func (w Window) MarshalYAML() (any, error) { return w.String(), nil }

var windowText = regexp.MustCompile(`^([01][0-9]|2[0-3]):([0-5][0-9]) ?- ?([01][0-9]|2[0-3]):([0-5][0-9])$`)

func (d *decoder) update(n *yaml.Node) Update {
	var u Update
	d.mapping(n, "update", []key{
		{"window", func(v *yaml.Node) { u.Window = d.window(v) }},
		{"days", func(v *yaml.Node) {
			d.list(v, "days", len(days), func(v *yaml.Node) {
				day := Day(d.choice(v, append(slices.Clone(days[1:]), days[0])...))
				switch {
				case slices.Contains(u.Days, day):
					d.report(v, "day %s is already in the list", day)
				case day != "":
					u.Days = append(u.Days, day)
				}
			})
		}},
		{"zone", func(v *yaml.Node) { u.Zone = d.zone(v) }},
		{"usb", func(v *yaml.Node) { u.USB = USB(d.choice(v, string(USBOff), string(USBAsk))) }},
		{"source", func(v *yaml.Node) { u.Source = d.source(v) }},
	})
	for _, name := range []string{"days", "zone"} {
		if at := d.find(n, name); at != nil && d.find(n, "window") == nil {
			d.report(at, "%q needs a window, and there is none", name)
		}
	}
	return u
}

func (d *decoder) window(n *yaml.Node) Window {
	s, ok := d.text1(n, "a window")
	if !ok {
		return Window{}
	}
	m := windowText.FindStringSubmatch(s)
	if m == nil {
		d.report(n, "window %q: expected two times of day, as in 02:00-04:00", s)
		return Window{}
	}
	at := func(hours, minutes string) time.Duration {
		t, _ := time.ParseDuration(hours + "h" + minutes + "m") // the pattern holds
		return t
	}
	w := Window{at(m[1], m[2]), at(m[3], m[4])}
	if w.From == w.To {
		d.report(n, "window %q ends at the time at which it begins", s)
		return Window{}
	}
	return w
}

// zoneName is how a zone may be called. Which there are, init is too small to know: the
// agent says so when the settings are given to it.
var zoneName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$`)

func (d *decoder) zone(n *yaml.Node) string {
	s, ok := d.text1(n, "a time zone")
	if ok && (!zoneName.MatchString(s) || len(s) > 64 || s == "Local") {
		d.report(n, "time zone %q: expected UTC or a name like Europe/Berlin", s)
		return ""
	}
	return s
}

func (d *decoder) source(n *yaml.Node) string {
	s, ok := d.text1(n, "a source of releases")
	if !ok {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case len(s) > 1024 || s == "" || strings.ContainsAny(s, " \t\n"):
		d.report(n, "source %.100q is not an address", s)
	case strings.HasPrefix(s, "usb:"):
		d.report(n, `a stick is not a source: set "usb: ask", and kogge node update NODE usb: installs from a stick`)
	case err == nil && u.User != nil:
		d.report(n, "source %q has a password in it: secrets do not belong in node.yaml", u.Redacted())
	case strings.Contains(s, "://") && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == ""):
		d.report(n, "source %q: expected https://… or the release's name in a registry", s)
	default:
		return s
	}
	return ""
}
