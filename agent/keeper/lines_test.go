package keeper

import (
	"bytes"
	"errors"
	"log"
	"strings"
	"testing"

	"kogge.example/agent/workload"
)

// joined is a network on which several things are wrong at once.
type joined struct{ *fakeNetwork }

var errJoined = errors.Join(errors.New("no nftables"), errors.New("no bounds"))

func (joined) Publish([]workload.Publish) error                            { return errJoined }
func (joined) Prune([]workload.Network) error                              { return errJoined }
func (joined) Follow() (moving map[string]string, err error)               { return nil, errJoined }
func (joined) Make([]workload.Network) (map[string]workload.Subnet, error) { return nil, errJoined }

// TestOneLine: what is wrong with the networks is a line of the log, and of the status.
func TestOneLine(t *testing.T) {
	var said bytes.Buffer
	before, flags := log.Writer(), log.Flags()
	log.SetOutput(&said)
	log.SetFlags(0)
	defer func() { log.SetOutput(before); log.SetFlags(flags) }()
	k := &Keeper{Network: joined{&fakeNetwork{}}, publish: true}
	k.units = map[string]*unit{"web": k.newUnit(web(workload.Always))}
	k.ids = []string{"web"}
	k.publishPorts()
	if want := "published ports: no nftables; no bounds"; k.trouble != want {
		t.Errorf("trouble: %q, want %q", k.trouble, want)
	}
	if err := k.follow(); err != nil || k.links != "no nftables; no bounds" {
		t.Errorf("%v, links: %q", err, k.links)
	}
	k.prune()
	k.linkAll(nil)
	k.assignAll()
	lines := strings.Split(strings.TrimSuffix(said.String(), "\n"), "\n")
	for _, line := range lines {
		if !strings.HasPrefix(line, "workloads: ") && !strings.HasPrefix(line, "container web: ") || !strings.HasSuffix(line, "no nftables; no bounds") {
			t.Errorf("a line of the log: %q", line)
		}
	}
	if len(lines) != 5 {
		t.Errorf("lines of the log: %q", lines)
	}
}
