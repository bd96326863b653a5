package engine

import (
	"fmt"
	"regexp"
)

// misfit is what runc says where a mount finds something else in the image than it needs: the
// place, and the kernel's or runc's reason.
var misfit = regexp.MustCompile(`error mounting "[^"]*" to rootfs at "([^"]*)": (?:.*: )?((?:not|is) a directory|too many levels of symbolic links|filesystem "\w+" must be mounted on ordinary directory)$`)

// unlike is the same of a file that is mounted on a folder, or the other way round.
var unlike = regexp.MustCompile(`error mounting "[^"]*" to rootfs at "([^"]*)": move_mount .*: (invalid argument)$`)

// cannotMount is err in our words where an image is the reason, and not the node, of which runc
// says paths.
func cannotMount(err error) error {
	for _, said := range []*regexp.Regexp{misfit, unlike} {
		if m := said.FindStringSubmatch(err.Error()); m != nil {
			return fmt.Errorf("nothing can be mounted on %s: the image has a folder where a file belongs, a file where a folder belongs, or a link that does not lead there: %s", m[1], m[2])
		}
	}
	return err
}
