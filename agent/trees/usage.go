package trees

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Usage is what the files below folder take of the disk. A container may change
// them meanwhile, but lead nobody out of the folder. least says that it may be more.
func Usage(ctx context.Context, folder string) (sum int64, least bool) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return 0, true
	}
	defer root.Close()
	for todo := []string{"."}; len(todo) > 0 && ctx.Err() == nil; {
		at := todo[len(todo)-1]
		more, n, err := countFolder(ctx, root, at, maxFolders-len(todo))
		todo = append(todo[:len(todo)-1], more...)
		sum, least = sum+n, least || err != nil
	}
	return sum, least || ctx.Err() != nil
}

// maxFolders is how many folders wait to be counted: their names take memory.
const maxFolders = 1 << 14

var errFolders = errors.New("too many folders")

// countFolder returns the folders in a folder, and what it and its files take.
func countFolder(ctx context.Context, root *os.Root, at string, most int) (folders []string, sum int64, err error) {
	f, err := root.Open(at)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	if info, statErr := f.Stat(); statErr == nil {
		sum += taken(info)
	}
	for ctx.Err() == nil {
		entries, readErr := f.ReadDir(512)
		for _, entry := range entries {
			info, infoErr := entry.Info()
			switch {
			case entry.IsDir() && len(folders) >= most:
				err = errFolders
			case entry.IsDir():
				folders = append(folders, filepath.Join(at, entry.Name()))
			case infoErr != nil:
				err = infoErr
			default:
				sum += taken(info)
			}
		}
		if errors.Is(readErr, io.EOF) {
			return folders, sum, err
		}
		if readErr != nil {
			return folders, sum, readErr
		}
	}
	return folders, sum, ctx.Err()
}

// taken is what a file takes of the disk; of one with several names, the share of one
// name.
func taken(info fs.FileInfo) int64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return info.Size()
	case info.IsDir() || st.Nlink < 2:
		return st.Blocks * 512
	}
	return st.Blocks * 512 / int64(st.Nlink)
}
