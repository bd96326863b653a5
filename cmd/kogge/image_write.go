package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/image/medium"
)

// writeFlags are the flags of kogge image write.
type writeFlags struct {
	yes, file bool
	config    string
}

func imageWriteCommand() *cobra.Command {
	var f writeFlags
	cmd := &cobra.Command{
		Use:   "write FILE DEVICE",
		Short: "Write an image to an SD card, a USB stick or a disk",
		Long: "Shows what DEVICE is, asks, writes the image to it and reads everything back. All data on DEVICE is\n" +
			"lost. A device that is mounted or holds the running system is refused.",
		Example: "  kogge image write kogge.img /dev/sdX\n  kogge image write kogge.img /dev/sdX --config n1.yaml --yes",
		Args:    exactly("FILE", "DEVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.run(cmd.Context(), args[0], args[1], cmd.InOrStdin()); err != nil {
				return mediumHint(fmt.Errorf("image write: %w", err))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&f.file, "file", false, "DEVICE is an existing ordinary file, used as a disk of its size")
	cmd.Flags().StringVar(&f.config, "config", "", "node.yaml to put on the boot partition")
	return cmd
}

func (f writeFlags) run(ctx context.Context, name, device string, in io.Reader) error {
	var config []byte
	var err error
	if f.config != "" {
		if config, err = readConfig(ctx, f.config); err != nil {
			return err
		}
	}
	image, contents, err := medium.OpenImage(name)
	if err != nil {
		return err
	}
	defer image.Close()
	facts, err := medium.Look(device)
	if err != nil {
		return err
	}
	if a, err := image.Stat(); err == nil {
		if b, err := os.Stat(device); err == nil && os.SameFile(a, b) {
			return fmt.Errorf("%s: this is the image itself", device)
		}
	}
	say("%s: %s, %s", name, contents, contents.Arch)
	say("%s", facts.Describe())
	if err := medium.Decide(facts, int64(contents.Table.Sectors)*512, f.file); err != nil {
		return err
	}
	if !f.yes {
		if err := confirm(patient{ctx, in}, device); err != nil {
			return err
		}
	}
	to, err := medium.Open(facts)
	if err != nil {
		return err
	}
	p := progress{tty: term.IsTerminal(int(os.Stderr.Fd())), w: os.Stderr, now: time.Now}
	r, err := medium.Write(ctx, image, contents, to, facts.Size, medium.Options{Config: config, When: time.Now(), Progress: p.show})
	p.end()
	if e := to.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	say("%s: ready; %d MB written, read back and compared. STATE grows to the whole medium at the first boot.", device, (r.Written+r.Zeroed)/1e6)
	return nil
}

// confirm has the operator type the name of the device.
func confirm(in io.Reader, device string) error {
	base := filepath.Base(device)
	fmt.Fprintf(errorOutput(), "All data on %s will be lost. Type %s to continue: ", device, base)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("confirmation: %w", err)
	}
	if answer := strings.TrimSpace(line); answer != base && answer != device {
		return errors.New("not confirmed: nothing was written")
	}
	return nil
}

// progress shows how far the work is: a bar on a terminal, otherwise a line for
// each tenth.
type progress struct {
	tty     bool
	w       io.Writer
	now     func() time.Time
	step    medium.Step
	started time.Time
	tenth   int64
	drawn   time.Time
	open    bool // a bar without its line end
}

func (p *progress) show(step medium.Step, done, total int64) {
	now := p.now()
	if step != p.step {
		p.end()
		p.step, p.started, p.tenth = step, now, 0
	}
	total = max(total, 1)
	tenth, last := done*10/total, done >= total
	switch {
	case p.tty && (last || now.Sub(p.drawn) > 100*time.Millisecond):
		const width = 30
		full := int(done * width / total)
		fmt.Fprintf(p.w, "\r%-6s [%s%s] %3d %%  %s ", step, strings.Repeat("#", full), strings.Repeat(".", width-full), done*100/total, p.rate(done, now))
		p.drawn, p.open = now, true
	case !p.tty && tenth > p.tenth:
		p.tenth = tenth
		fmt.Fprintf(p.w, "%s: %d %%, %s\n", step, done*100/total, p.rate(done, now))
	}
}

// rate is the throughput of this step so far.
func (p *progress) rate(done int64, now time.Time) string {
	seconds := now.Sub(p.started).Seconds()
	if seconds <= 0 {
		return fmt.Sprintf("%d MB", done/1e6)
	}
	return fmt.Sprintf("%d MB, %.1f MB/s", done/1e6, float64(done)/1e6/seconds)
}

// end ends the bar's line.
func (p *progress) end() {
	if p.open {
		fmt.Fprintln(p.w)
		p.open = false
	}
}
