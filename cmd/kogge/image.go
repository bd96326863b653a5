package main

import (
	"fmt"
	"os"
	"path/filepath"

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

func packageCache(locked bool) (debian.Cache, error) {
	dir, err := cacheDir()
	if err != nil {
		return debian.Cache{}, err
	}
	return debian.Cache{Dir: filepath.Join(dir, "debian"), Locked: locked, Say: say}, nil
}
