package registry

import (
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// Name is what the settings call the registry that people call name: the
// part of an image's name that says where it is from.
func Name(name string) (string, error) {
	if strings.Contains(name, "@") {
		return "", errors.New("registry: expected HOST or HOST:PORT, without @") // a password might stand before it
	}
	named, err := reference.ParseNormalizedNamed(name + "/image")
	if err != nil || strings.Contains(name, "/") {
		return "", fmt.Errorf("registry %q: expected HOST or HOST:PORT", name)
	}
	host := reference.Domain(named)
	if err := (Registry{}).check(host); err != nil {
		return "", fmt.Errorf("registry %q: %w", name, err)
	}
	if host != name && reference.Path(named) != "library/image" { // index.docker.io is docker.io
		return "", fmt.Errorf("registry %q: an image names its registry by a HOST with a dot, by HOST:PORT or by localhost", name)
	}
	return host, nil
}
