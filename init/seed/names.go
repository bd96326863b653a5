package seed

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Names are what people put into the folder "kogge" of the boot partition, and then what
// the node and its image do.
var (
	asked = []string{"node.yaml", "join.yaml", "reset-state"}
	ours  = []string{"readme.txt", "reset-begun", "boots.rec", "update"}
)

// litter is what computers leave wherever they look.
var litter = []string{"desktop.ini", "thumbs.db"}

// maxNames is how many files are named.
const maxNames = 5

// Misnamed says which files on the boot partition nobody reads, though somebody may have
// meant them: in the folder kogge all that are not known, and beside it those that are
// called nearly like one that is. nil means none. Upper and lower case do not count, and
// neither do names that begin with a dot.
func Misnamed(root, folder []string) error {
	var errs []error
	add := func(path, name string) {
		meant := meantBy(name)
		switch {
		case len(errs) > maxNames:
		case len(errs) == maxNames:
			errs = append(errs, errors.New("and more"))
		case meant != "":
			errs = append(errs, fmt.Errorf("%s is not read: call it kogge/%s if it is meant", printable(path), meant))
		default:
			errs = append(errs, fmt.Errorf("%s is not read: no file of that name is known", printable(path)))
		}
	}
	for _, name := range root {
		if meantBy(name) != "" {
			add(name, name)
		}
	}
	for _, name := range folder {
		low := strings.ToLower(name)
		if strings.HasPrefix(low, ".") || slices.Contains(asked, low) || slices.Contains(ours, low) || slices.Contains(litter, low) {
			continue
		}
		add("kogge/"+name, name)
	}
	return errors.Join(errs...)
}

// meantBy is the file of ours that somebody meant who wrote one called name; "" if none.
func meantBy(name string) string {
	low := strings.ToLower(name)
	if strings.HasPrefix(low, ".") {
		return ""
	}
	plain := func(s string) string {
		s, _, _ = strings.Cut(s, ".")
		return strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' {
				return r
			}
			return -1
		}, s)
	}
	for _, one := range asked {
		if strings.HasPrefix(low, one) || plain(low) == plain(one) {
			return one
		}
	}
	return ""
}

// printable is a name for a console: whoever wrote it may have meant anything.
func printable(name string) string {
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // what turns the direction of a line, and what nobody sees, too
			return '?'
		}
		return r
	}, strings.ToValidUTF8(name, "?"))
	if r := []rune(clean); len(r) > 64 {
		return string(r[:64]) + "…"
	}
	return clean
}
