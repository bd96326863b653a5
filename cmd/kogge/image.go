package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kogge.example/image/debian"
)

func imageCommand() *cobra.Command {
	return group("image", "Build disk images and write them to media",
		imageBuildCommand(), imageSeedCommand(), imageWriteCommand(), imageLockCommand())
}

// cacheDir is where downloaded packages, firmware and virtual machines live.
func cacheDir() (string, error) {
	if dir := os.Getenv("KOGGE_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache folder: %w; set KOGGE_CACHE", err)
	}
	return filepath.Join(dir, "kogge"), nil
}

func packageCache(locked bool, without ...string) (debian.Cache, error) {
	for _, suite := range without {
		if known := debian.Suites(); !slices.Contains(known, suite) {
			return debian.Cache{}, usage{fmt.Errorf("--without-suite %s: there is no such suite here: it is one of %s", suite, strings.Join(known, ", "))}
		}
	}
	without = slices.Compact(slices.Sorted(slices.Values(without))) // it goes into the image
	dir, err := cacheDir()
	if err != nil {
		return debian.Cache{}, err
	}
	return debian.Cache{Dir: filepath.Join(dir, "debian"), Locked: locked, Without: without, Say: say}, nil
}
