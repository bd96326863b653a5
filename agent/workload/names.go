package workload

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
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

// ValidID says whether a container can have that ID: a service, with its project before it
// where it has one. Anything else could be a path.
func ValidID(id string) bool { return validID.MatchString(id) }

var validID = regexp.MustCompile(`^([a-z0-9][a-z0-9_-]{0,62}\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ErrAmbiguous means that a name is that of a service in several projects.
var ErrAmbiguous = errors.New("it is in several projects")

// Find returns the container that people call name: its ID, or the name of its service
// if no other project has one of that name. The error is [ErrUnknown], or
// [ErrAmbiguous] with the names to choose from.
func (s Status) Find(name string) (UnitStatus, error) {
	all := s.All()
	ids := make([]string, len(all))
	for i, u := range all {
		ids[i] = u.ID
	}
	i, err := Choose(ids, name)
	if err != nil {
		return UnitStatus{}, err
	}
	return all[i], nil
}

// All are the units and what leaves.
func (s Status) All() []UnitStatus { return slices.Concat(s.Units, s.Leaving) }

// Choose is [Status.Find] among ids of containers, and returns the place in that list.
func Choose(ids []string, name string) (int, error) {
	found := -1
	var all []string
	for i, id := range ids {
		if id == name {
			return i, nil
		}
		if _, service := Split(id); service == name {
			found, all = i, append(all, id)
		}
	}
	switch len(all) {
	case 0:
		return 0, fmt.Errorf("container %s: %w", name, ErrUnknown)
	case 1:
		return found, nil
	}
	return 0, fmt.Errorf("container %s: %w: %s", name, ErrAmbiguous, strings.Join(all, ", "))
}

// ErrUnknown means that the node has no such container.
var ErrUnknown = errors.New("no such container")

// ErrNoImage means that the node does not have the image.
var ErrNoImage = errors.New("not on this node")
