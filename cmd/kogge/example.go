package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"kogge.example/image"
	"kogge.example/image/example"
	"kogge.example/image/program"
	"kogge.example/qemu"
)

// examplePort is where the example container answers, in the node and in the container.
const examplePort = 8080

// exampleImage is the name under which the example container is preloaded.
const exampleImage = "kogge.local/example:1"

// exampleSeed is the node.yaml of a node that runs the example.
const exampleSeed = `hostname: kogge
workloads:
  services:
    example:
      image: ` + exampleImage + `
      ports: ["8080:8080"]
      read_only: true
      mem_limit: 64m
`

// example builds an image that has the example container preloaded, and completes
// the machine with the seed that runs it.
func (f *runFlags) example(ctx context.Context, dir string, m *qemu.Machine) (image.Built, error) {
	o, err := f.build.options(ctx)
	if err != nil {
		return image.Built{}, err
	}
	tarball := filepath.Join(dir, "example.tar")
	if err := exampleTar(ctx, o.Source, filepath.Join(o.Cache, "programs"), o.Board.Arch, tarball, o.When); err != nil {
		return image.Built{}, err
	}
	o.Preload = append(o.Preload, tarball)
	if m.Seed == "" {
		m.Seed = filepath.Join(dir, "node.yaml")
		if err := os.WriteFile(m.Seed, []byte(exampleSeed), 0o644); err != nil {
			return image.Built{}, fmt.Errorf("seed: %w", err)
		}
	}
	return image.Build(ctx, o, f.image)
}

// exampleTar builds the example container as an OCI archive in file.
func exampleTar(ctx context.Context, source, cache, arch, file string, when time.Time) error {
	program, err := program.BuildExample(ctx, program.Options{Source: source, Cache: cache, Arch: arch})
	if err != nil {
		return err
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("example container: %w", err)
	}
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("example container: %w", err)
	}
	return errors.Join(example.Tar(f, exampleImage, arch, binary, when), f.Close())
}
