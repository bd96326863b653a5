package identity

import (
	"os"
	"path/filepath"

	"kogge.example/update/durable"
)

// files is the node's folder on STATE. The tests have one that loses power.
type files interface {
	Read(name string) ([]byte, error)       // fs.ErrNotExist: there is none
	Replace(name string, data []byte) error // old or new after a power cut, new once it returns
}

// keeping are files that are kept when others take their place.
type keeping interface {
	files
	Keep(name string) error // aside, too, without reading it, as durable.AsideName; fs.ErrNotExist: there is none
}

// folder is a folder of the machine's file system.
type folder string

// maxFile is above what any file of the folder can take, in bytes: the longest is the list of revoked
// keys.
const maxFile = 2 << 20

func (f folder) Read(name string) ([]byte, error) {
	return durable.Read(filepath.Join(string(f), name), maxFile)
}

func (f folder) Keep(name string) error { return durable.Keep(filepath.Join(string(f), name)) }

func (f folder) Replace(name string, data []byte) error {
	return durable.Replace(filepath.Join(string(f), name), data, 0o600)
}

// makeFolder makes dir for this user alone, and durably: a key is synced into it.
func makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return durable.SyncFolder(filepath.Dir(dir))
}
