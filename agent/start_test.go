package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/typeurl/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"google.golang.org/protobuf/proto"

	"kogge.example/agent/workload"
)

// testStart starts the same container a few times and says how long that took: from the
// order, its network and its root file system included, to the first answer of the program
// in it. It is a figure, and no time is too long.
func (n *node) testStart(t *testing.T, k *keeping) {
	const starts = 9
	var took []time.Duration
	for i := range starts {
		c := workload.Container{
			ID: "quick", Image: "example.invalid/web:1", Hostname: "quick", Env: []string{"PORT=80"}, Pids: 100,
			Networks: []workload.Attachment{{Network: "default"}},
		}
		at := netip.AddrFrom4([4]byte{10, 88, 0, byte(100 + i)})
		instance := workload.Instance{Name: fmt.Sprintf("quick.%d", i), At: []workload.Address{{Network: "default", Addr: at}}}
		began := time.Now()
		place, err := k.keeper.Network.Attach(instance.Name, instance.At, false)
		must(t, err)
		must(t, k.keeper.Engine.Prepare(c, instance.Name))
		must(t, k.keeper.Engine.WriteFiles(c, instance.Name, workload.View{}))
		must(t, k.keeper.Engine.Start(t.Context(), c, instance, place))
		for {
			answer, err := http.Get(fmt.Sprintf("http://%s/", at))
			if err == nil {
				answer.Body.Close()
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("no answer: %v", err)
			}
			time.Sleep(time.Millisecond) // what is measured is not much longer
		}
		took = append(took, time.Since(began))
		must(t, k.keeper.Engine.Remove(t.Context(), instance.Name, "SIGKILL", 0))
		must(t, k.keeper.Engine.RemoveFiles(instance.Name))
		must(t, k.keeper.Network.Detach(instance.Name))
	}
	slices.Sort(took)
	t.Logf("a container from the order to its first answer: median %v of %d (%v to %v)", took[starts/2], starts, took[0], took[starts-1])
}

// testFeatures asks runc itself for what the shim answers from memory.
func (n *node) testFeatures(t *testing.T) {
	said, err := exec.Command(filepath.Join(n.bin, "containerd-shim-runc-v2"), "-info").Output()
	must(t, err)
	var info types.RuntimeInfo
	must(t, proto.Unmarshal(said, &info))
	ours, err := typeurl.UnmarshalAny(info.Features)
	must(t, err)
	text, err := exec.Command(filepath.Join(n.bin, "runc"), "features").Output()
	must(t, err)
	var theirs features.Features
	must(t, json.Unmarshal(text, &theirs))
	want := &features.Features{Linux: &features.Linux{MountExtensions: theirs.Linux.MountExtensions}}
	if diff := cmp.Diff(want, ours); diff != "" || !*theirs.Linux.MountExtensions.IDMap.Enabled {
		t.Errorf("of mounts with mapped owners:\n%s", diff)
	}
}
