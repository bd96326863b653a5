// Package imageref is what images are called: in comes a name as people write it, out goes
// the one name that the image store has for it, or a refusal. It asks nobody.
package imageref

import (
	"fmt"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// maxName is more than a name can have: registry and path, tag and digest.
const maxName = 1024

// Full is what the image store calls the image that people call name: with registry and
// tag, as Docker completes them.
func Full(name string) (string, error) {
	if len(name) > maxName {
		return "", fmt.Errorf("image name %.40q: it has %d bytes, a name has %d at the most", name, len(name), maxName)
	}
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w", name, err)
	}
	return named.String(), nil
}

// Pin is the digest in the full name of an image: what has another one is not that image. "":
// there is none in it.
func Pin(full string) digest.Digest {
	if named, err := reference.ParseDockerRef(full); err == nil {
		if pinned, ok := named.(reference.Digested); ok {
			return pinned.Digest()
		}
	}
	return ""
}
