package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Join is what the node calls the service, network or volume that a project calls
// name: PROJECT.NAME. Those of node.yaml, which is no project, keep their names.
func Join(project, name string) string {
	if project == "" {
		return name
	}
	return project + "." + name
}

// Split is the other way round, of a container: neither projects nor services have
// a dot in their names.
func Split(id string) (project, service string) {
	if project, service, ok := strings.Cut(id, "."); ok {
		return project, service
	}
	return "", id
}

// instances are what the instances of the container id are called: there are two at
// most, side by side while one takes over from the other. No service's name has an
// underscore, so that none is that of another container.
func instances(id string) [2]string {
	name := id
	if len(name) > maxInstance-2 || !instanceName.MatchString(name) {
		sum := sha256.Sum256([]byte(id))
		name = strings.Trim(separators.ReplaceAllString(id, "-"), "-")
		name = strings.TrimRight(name[:min(len(name), 50)], "-") + "_" + hex.EncodeToString(sum[:8])
	}
	return [2]string{name, name + "_2"}
}

// maxInstance is the longest name that containerd takes, and instanceName its form.
//
// Source: pkg/identifiers/validate.go of containerd.
const maxInstance = 76

var (
	instanceName = regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`)
	separators   = regexp.MustCompile(`[._-]+`)
)

// ErrAmbiguous means that a name is that of a service in several projects.
var ErrAmbiguous = errors.New("it is in several projects")

// Find returns the container that people call name: its ID, or the name of its service
// if no other project has one of that name. The error is [ErrUnknown], or
// [ErrAmbiguous] with the names to choose from.
func (s Status) Find(name string) (UnitStatus, error) {
	var found []UnitStatus
	var ids []string
	for _, u := range s.Units {
		if u.ID == name {
			return u, nil
		}
		if _, service := Split(u.ID); service == name {
			found, ids = append(found, u), append(ids, u.ID)
		}
	}
	switch len(found) {
	case 0:
		return UnitStatus{}, fmt.Errorf("container %s: %w", name, ErrUnknown)
	case 1:
		return found[0], nil
	}
	return UnitStatus{}, fmt.Errorf("container %s: %w: %s", name, ErrAmbiguous, strings.Join(ids, ", "))
}
