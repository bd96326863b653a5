package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"kogge.example/image/example"
	"kogge.example/image/program"
)

// epoch is the time of everything in the images, in seconds since 1970: 1 January
// 2026. The clock of a node never starts before it, and images do not differ from
// one commit to the next only because of the time.
const epoch = 1767225600

// cli makes the CLI once per run of the tests and returns its path.
var cli = sync.OnceValues(func() (string, error) {
	path := filepath.Join(tools, "kogge")
	cmd := exec.Command("go", "build", "-o", path, "kogge.example/cmd/kogge")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kogge: %w\n%s", err, out)
	}
	return path, nil
})

// imageSet is what scripts boot, as paths.
type imageSet struct {
	base        string // runs the example, its node.yaml on the boot partition
	recorder    string // runs the recorder
	exampleTar  string // OCI archive of the example container
	exampleARM  string // the same for arm64
	exampleYAML string // node.yaml that runs it
	proberTar   string // OCI archive of agent/prober, which tries what is forbidden
	hogTar      string // OCI archive of the hog, which takes all that it can get
}

// images are built once per run of the tests, for all scripts. All of them have
// the test port.
var images = sync.OnceValues(func() (imageSet, error) {
	s := imageSet{
		base: filepath.Join(tools, "base.img"), recorder: filepath.Join(tools, "recorder.img"),
		exampleTar: filepath.Join(tools, "example.tar"), exampleYAML: filepath.Join(tools, "example.yaml"),
		exampleARM: filepath.Join(tools, "example-arm64.tar"),
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return s, err
	}
	cache, err := cacheDir()
	if err != nil {
		return s, err
	}
	o := program.Options{Source: root, Cache: filepath.Join(cache, "programs"), Arch: "amd64"}
	if err := example.Build(context.Background(), o, time.Unix(epoch, 0), s.exampleTar); err != nil {
		return s, err
	}
	o.Arch = "arm64"
	if err := example.Build(context.Background(), o, time.Unix(epoch, 0), s.exampleARM); err != nil {
		return s, err
	}
	if err := os.WriteFile(s.exampleYAML, []byte(example.NodeYAML), 0o644); err != nil {
		return s, err
	}
	recorderTar, err := archive(root, "recorder", "./qemu/e2e/recorder")
	if err != nil {
		return s, err
	}
	if s.proberTar, err = archive(root, "prober", "./agent/prober"); err != nil {
		return s, err
	}
	if s.hogTar, err = archive(root, "hog", "./qemu/e2e/hog"); err != nil {
		return s, err
	}
	return s, errors.Join(
		buildImage(root, s.exampleTar, s.exampleYAML, s.base),
		buildImage(root, recorderTar, filepath.Join(root, "qemu/e2e/testdata/node/recorder.yaml"), s.recorder))
})

// archive builds a program as the OCI archive kogge.local/NAME:1.
func archive(root, name, pkg string) (string, error) {
	binary, archive := filepath.Join(tools, name), filepath.Join(tools, name+".tar")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, pkg)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return "", err
	}
	f, err := os.Create(archive)
	if err != nil {
		return "", err
	}
	return archive, errors.Join(example.Tar(f, "kogge.local/"+name+":1", "amd64", data, time.Unix(epoch, 0)), f.Close())
}

// buildImage runs the CLI as an operator does, but for the test port.
func buildImage(root, archive, config, out string) error {
	program, err := cli()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, "image", "build", "--version", "1.0", "--tags", "testport", "--preload", archive, "--config", config, "-o", out)
	cmd.Dir, cmd.Env = root, append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch))
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, text)
	}
	return nil
}
