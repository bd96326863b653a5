package partition

import (
	"slices"
	"strings"
)

// Preload is the folder on STATE in which an image has archives of container images, and from
// which the agent imports them.
const Preload = "preload"

// archives are the endings of what is imported from there.
var archives = []string{".tar", ".tar.gz", ".tar.zst", ".tgz", ".oci", ".oci.gz", ".oci.zst"}

// IsPreload says whether a file in [Preload] is taken for an archive, by its name: without a
// folder, not hidden, on one line.
func IsPreload(name string) bool {
	if strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\n") {
		return false
	}
	return slices.ContainsFunc(archives, func(end string) bool { return strings.HasSuffix(name, end) })
}
