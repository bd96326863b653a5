package example

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"kogge.example/image/program"
)

// Port is where the container answers, inside and on the node.
const Port = 8080

// Image is the name under which the container is preloaded.
const Image = "kogge.local/example:1"

// NodeYAML is the configuration of a node that runs the container.
const NodeYAML = `hostname: kogge
workloads:
  services:
    example:
      image: ` + Image + `
      ports: ["8080:8080"]
      read_only: true
      restart: unless-stopped
      mem_limit: 64m
`

// Build compiles the program of this source tree and writes its image to file.
func Build(ctx context.Context, o program.Options, when time.Time, file string) error {
	path, err := program.BuildExample(ctx, o)
	if err != nil {
		return err
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("example container: %w", err)
	}
	var b bytes.Buffer
	if err := Tar(&b, Image, o.Arch, binary, when); err != nil {
		return err
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("example container: %w", err)
	}
	return nil
}
