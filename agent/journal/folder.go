package journal

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"kogge.example/update/durable"
)

// folder is that of STATE, on the machine's file system.
type folder string

// maxFile is above what a journal takes, in bytes.
const maxFile = 16 << 20

func (f folder) at(name string) string { return filepath.Join(string(f), filepath.FromSlash(name)) }

func (f folder) Read(name string) ([]byte, error) { return durable.Read(f.at(name), maxFile) }

func (f folder) Replace(name string, data []byte) error {
	return durable.Replace(f.at(name), data, 0o600)
}

func (f folder) Keep(name string) error { return durable.Keep(f.at(name)) }

func (f folder) Append(name string, size int64, data []byte) error {
	file, err := os.OpenFile(f.at(name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	return errors.Join(appendTo(file, size, data), file.Close())
}

// appendTo wants the file to be as it was left: nobody else writes to it.
func appendTo(file *os.File, size int64, data []byte) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != size {
		return fmt.Errorf("append to %s: somebody has changed it: it has %d bytes, and had %d", file.Name(), info.Size(), size)
	}
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.Sync()
}

// lock makes the folder, and locks it for this process until it ends or calls release.
func (f folder) lock() (release func() error, err error) {
	name := f.at(folderName)
	if err := os.MkdirAll(name, 0o700); err != nil {
		return nil, err
	}
	for _, dir := range []string{path.Dir(folderName), "."} {
		if err := durable.SyncFolder(f.at(dir)); err != nil {
			return nil, err
		}
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file.Close, nil
}
