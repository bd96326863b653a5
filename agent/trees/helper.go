package trees

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Role is what a program calls itself with to be the helper of [By]: its arguments are
// Role and a folder.
const Role = "remove"

// By has another process of this program remove folder: what the kernel keeps in memory
// for a large tree, and for how long, is then no burden of this one.
func By(ctx context.Context, folder string) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", Role, folder)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("remove %s by a helper: %w: %s", folder, err, strings.TrimSpace(said.String()))
	}
	return nil
}

// helperMemory is what the helper needs at the most, in bytes.
const helperMemory = 16 << 20

// Helper is the helper: it removes a folder, when nobody else wants the processor.
func Helper(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: expected one folder, got %d arguments", Role, len(args))
	}
	debug.SetMemoryLimit(helperMemory)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19) // at the usual priority it works too
	return All(ctx, args[0])
}
