package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"kogge.example/agent/images"
)

// testSibling: a volume of one container is filled, and another one, whatever its name, keeps
// its root file system.
func (i *imaged) testSibling(t *testing.T) {
	i.load(t, "hangs", map[string]any{"Cmd": []string{"app", "hang"}})
	file := filepath.Join(i.n.folder, "compose.yaml")
	const image = ": {image: example.invalid/hangs:1, stop_grace_period: 0s"
	text := "name: pg\nservices:\n  db-image" + image + "}\n"
	for _, step := range [][2]string{{"pg.db-image", ""}, {"pg.db", "  db" + image + ", volumes: [filled:/data]}\nvolumes: {filled: }\n"}} {
		must(t, os.WriteFile(file, []byte(text+step[1]), 0o600))
		i.kogge(t, step[0], "apply", "-f", file)
	}
	c, err := client.New(filepath.Join(i.n.folder, "run", "containerd.sock"))
	must(t, err)
	defer c.Close()
	if _, err := c.SnapshotService(images.Snapshotter).Mounts(namespaces.WithNamespace(t.Context(), images.Namespace), "pg.db-image"); err != nil {
		t.Errorf("the root file system of the neighbour of a container whose volume was filled: %v", err)
	}
	i.kogge(t, "", "rm", "pg")
	i.kogge(t, "", "volumes", "rm", "pg.filled")
}
