package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kogge.example/boards"
	"kogge.example/image/debian"
)

func imageLockCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "lock [SET…]",
		Short: "Pin the mirror's current Debian packages",
		Long: "Looks up what the mirror has now and rewrites image/debian/lock in the source tree: a set for each board,\n" +
			"the builder's tools, the firmware of virtual machines and the C library of runc. Commit the result.\n" +
			"A package that would become older is refused.",
		Example: "  kogge image lock\n  kogge image lock qemu-x86_64",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cache, err := packageCache(false)
			if err != nil {
				return err
			}
			want := map[string]bool{}
			for _, a := range args {
				want[a] = true
			}
			sets, err := debian.Sets(boards.All)
			if err != nil {
				return err
			}
			for _, set := range sets {
				if len(args) > 0 && !want[set.Name] {
					continue
				}
				delete(want, set.Name)
				lock, err := cache.Resolve(cmd.Context(), set)
				if err != nil {
					return err
				}
				file := filepath.Join("image/debian/lock", set.Name+".lock")
				if err := notBefore(lock, file); err != nil {
					return err
				}
				if err := os.WriteFile(file, lock.Format(), 0o644); err != nil {
					return fmt.Errorf("lock %s: %w; run this at the top of the source tree", set.Name, err)
				}
				say("%s: %d packages", set.Name, len(lock.Packages))
			}
			if len(want) > 0 {
				return fmt.Errorf("there is no set %s", strings.Join(args, ", "))
			}
			return nil
		},
	}
}

// notBefore holds a new lock against the one in the file that it is to replace.
func notBefore(lock debian.Lock, file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name, err)
	}
	old, err := debian.ParseLock(lock.Name, text)
	if err != nil {
		return err
	}
	if err := lock.NotBefore(old); err != nil {
		return hinted{err, "the mirror has fallen behind: KOGGE_MIRROR names another one; to go back all the same, remove " + file}
	}
	return nil
}
