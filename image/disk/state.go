package disk

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"kogge.example/image/debian"
	"kogge.example/image/rootfs"
	"kogge.example/update/gpt"
)

// Features are the features of a STATE file system. They name its format: a kept result
// made with others is not used.
type Features string

const (
	// PlainState are those that every release of Kogge mounts.
	PlainState Features = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum,metadata_csum_seed"
	// QuotaState has quotas of projects. Releases that do not read format
	// partition.SealedState do not mount it for writing.
	QuotaState = PlainState + ",quota,project"
)

// reservedPercent of the blocks are root's. The kernel keeps the share as the file system
// grows, in whole percent: of 1, which is 0.999 of the blocks that there are, it would make
// nothing.
const reservedPercent = "2"

// stateJournal is the size of STATE's journal in MiB: large enough for the disk
// that the file system will grow to.
const stateJournal = 64

// stateRoom is the size in 4 KiB blocks up to which STATE can grow while mounted.
const stateRoom = 2 << 40 / 4096

// MakeState writes a STATE file system of size bytes with the features and the files to
// out; all belong to root.
func MakeState(ctx context.Context, tools debian.Toolbox, out string, features Features, size int64, seed string, when time.Time, files []rootfs.Entry) error {
	tarball := out + ".tar"
	defer os.Remove(tarball)
	if err := rootfs.WriteTar(tarball, files, when); err != nil {
		return fmt.Errorf("STATE: %w", err)
	}
	if err := os.Remove(out); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("STATE: %w", err)
	}
	quotas := ""
	if features == QuotaState {
		quotas = "quotatype=prjquota,"
	}
	// Every parameter is named: a default could differ in the next version.
	cmd, err := tools.Command(ctx, []string{fmt.Sprintf("SOURCE_DATE_EPOCH=%d", when.Unix()), "MKE2FS_CONFIG=/dev/null", "MKE2FS_DETERMINISTIC=1"}, "mke2fs",
		"-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", reservedPercent, "-g", "32768", "-L", "STATE",
		"-O", string(features),
		"-U", gpt.DeriveGUID(seed, "state").String(), "-o", "linux", "-e", "remount-ro", "-G", "16",
		"-J", fmt.Sprintf("size=%d", stateJournal),
		"-E", fmt.Sprintf("%shash_seed=%s,resize=%d,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,nodiscard", quotas, gpt.DeriveGUID(seed, "state-hash"), int64(stateRoom)),
		"-d", tarball, out, fmt.Sprint(size/4096))
	if err != nil {
		return fmt.Errorf("STATE: %w", err)
	}
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &errs, &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("STATE: mke2fs: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	return nil
}
