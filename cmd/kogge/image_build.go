package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/agent/tarball"
	"kogge.example/boards"
	"kogge.example/image"
	"kogge.example/image/debian"
	"kogge.example/image/program"
	"kogge.example/init/nodeconfig"
)

// buildFlags are the flags of every command that builds an image.
type buildFlags struct {
	board, version, config, format string
	tags, fault, trust             string
	preload, without               []string
	locked                         bool
	slotSize                       size
}

func (f *buildFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.board, "board", "qemu-x86_64", "board to build for (kogge boards list)")
	completeFlag(cmd, "board", completeBoardFlag)
	cmd.Flags().StringVar(&f.version, "version", "", "version of the release (default: from git)")
	cmd.Flags().StringVar(&f.config, "config", "", "node.yaml to put on the boot partition")
	cmd.Flags().StringArrayVar(&f.preload, "preload", nil, "OCI archive that the node imports at its first boot (repeatable)")
	cmd.Flags().BoolVar(&f.locked, "locked", false, "fail if a pinned package has left the mirror, instead of taking a newer one")
	f.registerWithout(cmd)
	cmd.Flags().StringVar(&f.trust, "trust", "", "root.json of the keys that the node trusts: a `FILE` or the name of a key set (default: the set default, if there is one)")
	cmd.Flags().StringVar(&f.tags, "tags", "", "further Go build tags of init and agent")
	cmd.Flags().StringVar(&f.fault, "fault", "", "what the release breaks at each boot")
	for _, name := range []string{"tags", "fault"} { // for the project's own tests
		_ = cmd.Flags().MarkHidden(name)
	}
	cmd.Flags().Var(&f.slotSize, "slot-size", "size of each root slot (default 768MiB)")
}

// registerWithout adds the flag that release create has only to refuse it in words.
func (f *buildFlags) registerWithout(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.without, "without-suite", nil, "`SUITE` of Debian to go on without, such as "+debian.Suite+"-security; the image says so, and is no release (repeatable)")
	completeFlag(cmd, "without-suite", cobra.FixedCompletions(debian.Suites(), cobra.ShellCompDirectiveNoFileComp))
}

func imageBuildCommand() *cobra.Command {
	var f buildFlags
	var out string
	cmd := &cobra.Command{
		Use:   "build -o FILE",
		Short: "Build a disk image from this source tree",
		Long: "Builds a disk image for a board from this source tree. The same commit gives the same bytes, whoever " +
			"builds it. Without a node.yaml a node uses DHCP on every wired link and runs no containers.",
		Example: "  kogge image build --board pc-x86_64 -o kogge.img\n  kogge image build --preload web.tar --format qcow2 -o kogge.qcow2",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usage{hinted{fmt.Errorf("image build: no output file"), "add: -o kogge.img"}}
			}
			if f.format != "raw" && f.format != "qcow2" {
				return fmt.Errorf("image build: unknown format %q: use raw or qcow2", f.format)
			}
			if err := checkOutput(out); err != nil {
				return fmt.Errorf("image build: output: %w", err)
			}
			start := time.Now()
			built, err := f.build(cmd.Context(), out)
			if err != nil {
				return buildHint(err)
			}
			if built.Trust == 0 {
				say("the node will trust no keys and install no release: there is no key set called default, and no --trust")
			}
			if built.Marks != "" {
				say("the image is marked %s: kogge node status shows it, and kogge release create makes no release of such packages", strings.ReplaceAll(built.Marks, ",", ", "))
			}
			say("%s: board %s, root %.1f MB, boot files %.1f MB (initramfs %.1f MB), in %.1f s", out, f.board,
				float64(built.RootBytes)/1e6, float64(built.BootBytes)/1e6, float64(built.InitrdBytes)/1e6, time.Since(start).Seconds())
			return nil
		},
	}
	f.register(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "image file to write")
	cmd.Flags().StringVar(&f.format, "format", "raw", "raw or qcow2")
	completeFlag(cmd, "format", cobra.FixedCompletions([]string{"raw", "qcow2"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// checkOutput refuses a place where no image file can appear, before the minutes
// that a build takes.
func checkOutput(out string) error {
	folder := filepath.Dir(out)
	if st, err := os.Stat(folder); err != nil {
		return hinted{err, "mkdir -p " + folder}
	} else if !st.IsDir() {
		return fmt.Errorf("%s is not a folder", folder)
	}
	switch st, err := os.Stat(out); {
	case err != nil || st.Mode().IsRegular(): // it is made, or replaced
		return nil
	case st.IsDir():
		return hinted{fmt.Errorf("%s is a folder", out), "add the name of a file: -o " + filepath.Join(out, "kogge.img")}
	default:
		return hinted{fmt.Errorf("%s is a device, and a build writes to a file", out), "build to a file, then: kogge image write FILE " + out}
	}
}

// buildHint adds what to do about a build whose packages cannot be had.
func buildHint(err error) error {
	switch {
	case errors.Is(err, image.ErrMarked):
		return hinted{err, "put what the mirror has now into the lock, and commit that: kogge image lock"}
	case errors.Is(err, debian.ErrSuite):
		return hinted{err, "KOGGE_MIRROR names another mirror; or go on without the suite: kogge image build --without-suite NAME. Such an image says so, and is no release"}
	}
	return err
}

// build makes the image that the flags describe.
func (f *buildFlags) build(ctx context.Context, out string) (image.Built, error) {
	o, err := f.options(ctx)
	if err != nil {
		return image.Built{}, err
	}
	if f.format == "qcow2" {
		return buildQcow2(ctx, o, out)
	}
	return image.Build(ctx, o, out)
}

// options turns the flags into what a build needs.
func (f *buildFlags) options(ctx context.Context) (o image.Options, err error) {
	o = image.Options{Version: f.version, Preload: f.preload, SlotSize: int64(f.slotSize), Tags: f.tags, Fault: f.fault, Say: say}
	if o.Board, err = boards.Find(f.board); err != nil {
		return o, hinted{err, "kogge boards list"}
	}
	if f.config != "" {
		if o.Config, err = readConfig(ctx, f.config); err != nil {
			return o, err
		}
	}
	if o.Trust, err = readTrust(f.trust); err != nil {
		return o, err
	}
	for _, archive := range f.preload {
		if err := judgePreload(archive, o.Board.Arch); err != nil {
			return o, err
		}
	}
	if o.Packages, err = packageCache(f.locked, f.without...); err != nil {
		return o, err
	}
	if o.Source, err = program.Source(ctx); err != nil {
		return o, err
	}
	if o.Cache, err = cacheDir(); err != nil {
		return o, err
	}
	if o.When, err = commitTime(ctx, o.Source); err != nil {
		return o, err
	}
	if o.Version == "" {
		o.Version = gitVersion(ctx, o.Source)
	}
	return o, nil
}

// judgePreload refuses an archive that a node would refuse at its first boot.
func judgePreload(archive, arch string) error {
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("preload: %w", err)
	}
	defer f.Close()
	if err := tarball.Judge(f, arch); err != nil {
		return fmt.Errorf("preload %s: %w", archive, err)
	}
	return nil
}

// readConfig reads a node.yaml and refuses one that a node would refuse.
func readConfig(ctx context.Context, name string) ([]byte, error) {
	data, err := readInput(ctx, name, nodeconfig.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if _, err := nodeconfig.Parse(name, data); err != nil {
		return nil, fmt.Errorf("configuration:\n%w", err)
	}
	return data, nil
}

// buildQcow2 builds a raw image beside out and converts it.
func buildQcow2(ctx context.Context, o image.Options, out string) (image.Built, error) {
	tmp, err := os.MkdirTemp(filepath.Dir(out), ".qcow2-*")
	if err != nil {
		return image.Built{}, fmt.Errorf("output: %w", err)
	}
	defer os.RemoveAll(tmp)
	raw, converted := filepath.Join(tmp, "raw"), filepath.Join(tmp, "qcow2")
	built, err := image.Build(ctx, o, raw)
	if err != nil {
		return image.Built{}, err
	}
	cmd := exec.CommandContext(ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, converted)
	if text, err := cmd.CombinedOutput(); err != nil {
		return image.Built{}, hinted{fmt.Errorf("convert to qcow2: %w: %s", err, strings.TrimSpace(string(text))), "qemu-img is in the package qemu-utils"}
	}
	if err := os.Rename(converted, out); err != nil {
		return image.Built{}, fmt.Errorf("output: %w", err)
	}
	return built, nil
}

// commitTime is SOURCE_DATE_EPOCH if it is set, otherwise the time of the commit.
func commitTime(ctx context.Context, source string) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.CommandContext(ctx, "git", "-C", source, "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("time of the commit: git log: %w; without git set SOURCE_DATE_EPOCH to seconds since 1970", err)
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds <= 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q is not a number of seconds since 1970", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// gitVersion names the commit, with "-dirty" when files differ from it.
func gitVersion(ctx context.Context, source string) string {
	out, err := exec.CommandContext(ctx, "git", "-C", source, "describe", "--always", "--dirty", "--abbrev=12").Output()
	if v := strings.TrimSpace(string(out)); err == nil && v != "" {
		return v
	}
	return "unversioned"
}

// size is a flag in bytes that takes MiB and GiB.
type size int64

// String is "" for the zero value: the default, which the help text names.
func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return fmt.Sprintf("%dMiB", *s>>20)
}

func (s *size) Type() string { return "SIZE" }

func (s *size) Set(text string) error {
	for suffix, unit := range map[string]int64{"MiB": 1 << 20, "GiB": 1 << 30} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			n, err := strconv.ParseInt(number, 10, 32)
			if err != nil || n <= 0 {
				break
			}
			*s = size(n * unit)
			return nil
		}
	}
	return fmt.Errorf("%q is not a size; write it like 768MiB or 1GiB", text)
}
