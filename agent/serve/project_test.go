package serve

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/wanted"
)

// TestApply sends Compose files to a node that keeps them.
func TestApply(t *testing.T) {
	projects := wanted.Open(filepath.Join(t.TempDir(), "projects"), nil)
	address, f, _ := ready(t, func(c *Config) { c.Projects = func() Projects { return projects } })
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	apply := func(project, text string, check bool) (*apiv1.ApplyResponse, error) {
		answer, err := c.Apply(timeout(t), connect.NewRequest(&apiv1.ApplyRequest{Project: project, Text: text, Check: check}))
		if err != nil {
			return nil, err
		}
		return answer.Msg, nil
	}
	const text = "version: '3'\nservices:\n  web:\n    image: example.org/web:1\n    ports: [\"80:80\"]\n"
	for _, check := range []bool{true, false} {
		got, err := apply("shop", text, check)
		if err != nil || len(got.Steps) != 1 || got.Steps[0].Change != "new" || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "version") {
			t.Errorf("check %v: %v, %v", check, got, err)
		}
	}
	got, err := apply("shop", strings.Replace(text, "web:1", "web:2", 1), true)
	if err != nil || got.Steps[0].Change != "replaced" {
		t.Errorf("%v, %v", got, err)
	}
	for name, test := range map[string]struct{ project, text, want string }{
		"a mistake":  {"shop", "services:\n  web:\n    imag: x\n", "shop.yaml:3:5"},
		"a conflict": {"other", text, "another project has it: shop"},
		"a name":     {"../x", text, "a project name has"},
	} {
		_, err := apply(test.project, test.text, false)
		if has(t, err, test.want); connect.CodeOf(err) == connect.CodeInternal {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := c.ListProjects(timeout(t), connect.NewRequest(&apiv1.ListProjectsRequest{}))
	if err != nil || len(list.Msg.Projects) != 1 || list.Msg.Projects[0] != "shop" {
		t.Errorf("%v, %v", list, err)
	}
	gone, err := c.RemoveProject(timeout(t), connect.NewRequest(&apiv1.RemoveProjectRequest{Project: "shop"}))
	if err != nil || gone.Msg.Steps[0].Change != "gone" {
		t.Errorf("%v, %v", gone, err)
	}
	_, err = c.RemoveProject(timeout(t), connect.NewRequest(&apiv1.RemoveProjectRequest{Project: "shop"}))
	has(t, err, "not_found")
}

// TestImages sends a tar that is larger than any message.
func TestImages(t *testing.T) {
	address, f, _ := ready(t, func(c *Config) { c.Images = func() Images { return &store{} } })
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	names, err := c.Load(timeout(t), strings.NewReader(strings.Repeat("x", 5<<20)))
	if err != nil || len(names) != 1 || names[0] != "registry.example/of:5242880" {
		t.Errorf("%v, %v", names, err)
	}
	_, err = c.Load(timeout(t), strings.NewReader(""))
	has(t, err, "it has no image with a name")
	list, err := c.ListImages(timeout(t), connect.NewRequest(&apiv1.ListImagesRequest{}))
	if err != nil || len(list.Msg.Images) != 2 || list.Msg.Images[0].Size != 42 || len(list.Msg.Images[0].UsedBy) != 2 || list.Msg.Images[1].Used != nil || !list.Msg.Images[1].Preload {
		t.Errorf("%v, %v", list, err)
	}
	for name, why := range map[string]string{"registry.example/db:1": "is in use by db, web", "registry.example/own:1": "is preloaded"} {
		_, err = c.RemoveImage(timeout(t), connect.NewRequest(&apiv1.RemoveImageRequest{Name: name}))
		has(t, err, "failed_precondition", why)
	}
	if _, err := c.RemoveImage(timeout(t), connect.NewRequest(&apiv1.RemoveImageRequest{Name: "registry.example/db:1", Force: true})); err != nil {
		t.Error(err)
	}
	for _, check := range []bool{true, false} {
		pruned, err := c.PruneImages(timeout(t), connect.NewRequest(&apiv1.PruneImagesRequest{Check: check}))
		if err != nil || len(pruned.Msg.Images) != 1 || (pruned.Msg.Freed == 42) == check {
			t.Errorf("prune, check %v: %v, %v", check, pruned, err)
		}
	}
	_, err = c.RemoveImage(timeout(t), connect.NewRequest(&apiv1.RemoveImageRequest{Name: "x"}))
	has(t, err, "not_found", "not on this node")
}

// TestVolumeCalls lists volumes, and removes what may go.
func TestVolumeCalls(t *testing.T) {
	address, f, _ := ready(t, func(c *Config) { c.Volumes = func() Volumes { return &store{} } })
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	list, err := c.ListVolumes(timeout(t), connect.NewRequest(&apiv1.ListVolumesRequest{}))
	if err != nil || len(list.Msg.Volumes) != 2 || list.Msg.Volumes[0].Project != "" || list.Msg.Volumes[1].Project != "shop" || !list.Msg.Volumes[1].Least {
		t.Errorf("%v, %v", list, err)
	}
	for name, words := range map[string][]string{"own": {"failed_precondition", "in use: by db"}, "../x": {"not_found", "no such volume"}, "shop.data": nil} {
		_, err := c.RemoveVolume(timeout(t), connect.NewRequest(&apiv1.RemoveVolumeRequest{Name: name}))
		if words != nil {
			has(t, err, words...)
		} else if err != nil {
			t.Error(err)
		}
	}
}

// TestPullImage follows pulls to their ends.
func TestPullImage(t *testing.T) {
	address, f, _ := ready(t, func(c *Config) { c.Images = func() Images { return &store{} } })
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	pull := func(ctx context.Context, name, platform string) (all []*apiv1.PullImageResponse, err error) {
		stream, err := c.PullImage(ctx, connect.NewRequest(&apiv1.PullImageRequest{Name: name, Platform: platform}))
		if err != nil {
			return nil, err
		}
		defer stream.Close()
		for stream.Receive() {
			all = append(all, stream.Msg())
		}
		return all, stream.Err()
	}
	all, err := pull(timeout(t), "registry.example/db", "")
	if err != nil || len(all) != 4 { // one report twice is one answer
		t.Fatalf("%v, %v", all, err)
	}
	last := all[3]
	if last.Name != "registry.example/db:latest" || last.Digest == "" || last.Pull.Done != 300 || len(last.Layers) != 2 || last.Layers[0].Before != 100 || last.Layers[1].From != "m.example" || all[2].Digest != "" {
		t.Errorf("the end: %v", last)
	}
	_, err = pull(timeout(t), "registry.example/none", "")
	has(t, err, "not_found", "registry.example: not in the registry")
	_, err = pull(timeout(t), "registry.example/db", "linux/"+"s390x")
	has(t, err, "failed_precondition", "image is for another platform")
	_, err = pull(timeout(t), "Registry.example//", "")
	has(t, err, "invalid_argument", "image name")
	ctx, cancel := context.WithTimeout(timeout(t), 100*time.Millisecond)
	defer cancel()
	if _, err = pull(ctx, "slow.example/db", ""); err == nil {
		t.Error("a pull without an end ends")
	}
}

// TestBeforeContainerd: what needs it says so, and the node answers all the same.
func TestBeforeContainerd(t *testing.T) {
	address, f, _ := ready(t, func(c *Config) { c.Containers = func() Containers { return nil } })
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	_, list := c.List(timeout(t), connect.NewRequest(&apiv1.ListRequest{}))
	_, run := c.Run(timeout(t), connect.NewRequest(&apiv1.RunRequest{Container: "db", Action: apiv1.Action_ACTION_STOP}))
	_, apply := c.Apply(timeout(t), connect.NewRequest(&apiv1.ApplyRequest{Project: "x"}))
	_, images := c.ListImages(timeout(t), connect.NewRequest(&apiv1.ListImagesRequest{}))
	_, load := c.Load(timeout(t), strings.NewReader("x"))
	stream, pull := c.PullImage(timeout(t), connect.NewRequest(&apiv1.PullImageRequest{Name: "db"}))
	if pull == nil && !stream.Receive() {
		pull = stream.Err()
	}
	_, volumes := c.ListVolumes(timeout(t), connect.NewRequest(&apiv1.ListVolumesRequest{}))
	_, volume := c.RemoveVolume(timeout(t), connect.NewRequest(&apiv1.RemoveVolumeRequest{Name: "x"}))
	_, prune := c.PruneImages(timeout(t), connect.NewRequest(&apiv1.PruneImagesRequest{}))
	for _, err := range []error{list, run, apply, images, load, pull, volumes, volume, prune} {
		has(t, err, "unavailable", "containerd is still starting")
	}
	if _, err := c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{})); err != nil {
		t.Error(err)
	}
}
