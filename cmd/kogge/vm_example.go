package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"kogge.example/image"
	"kogge.example/image/example"
	"kogge.example/image/program"
	"kogge.example/qemu"
)

// example builds an image that has the example container preloaded, and completes
// the machine with the seed that runs it.
func (f *runFlags) example(ctx context.Context, dir string, m *qemu.Machine) (image.Built, error) {
	o, err := f.build.options(ctx)
	if err != nil {
		return image.Built{}, err
	}
	if f.build.trust == "" {
		if o.Trust, err = devTrust(); err != nil {
			return image.Built{}, err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return image.Built{}, fmt.Errorf("folder of %s: %w", m.Name, err)
	}
	tarball := filepath.Join(dir, "example.tar")
	po := program.Options{Source: o.Source, Cache: filepath.Join(o.Cache, "programs"), Arch: o.Board.Arch}
	if err := example.Build(ctx, po, o.When, tarball); err != nil {
		return image.Built{}, err
	}
	o.Preload = append(o.Preload, tarball)
	if m.Seed == "" {
		m.Seed = filepath.Join(dir, "node.yaml")
		if err := os.WriteFile(m.Seed, []byte(example.NodeYAML), 0o644); err != nil {
			return image.Built{}, fmt.Errorf("seed: %w", err)
		}
	}
	return image.Build(ctx, o, f.image)
}
