// Package wanted says which containers a node is to run: those of its node.yaml and
// those of the Compose files that operators applied to it, each file a project.
//
// In come texts of Compose files; out goes one list of containers in which no port of
// the node is given twice, and a [Plan] that says what an apply would
// change. Applied files lie on STATE, one for each project, each written whole or
// not at all, and sealed (package sealed), since they hold secrets. The package starts nothing: the agent (keep in agent/node.go) waits for
// [Store.Changed] and gives [Store.Containers] to the keeper's Want.
package wanted

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"kogge.example/agent/compose"
	"kogge.example/agent/sealed"
	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
	"kogge.example/init/rights"
	"kogge.example/update/durable"
)

// Node is the project of node.yaml's own workloads. Nobody applies to it.
const Node = "node.yaml"

// suffix of the files on STATE.
const suffix = ".yaml"

// Refused begins what the agent says of itself while it refuses what is wanted, and leaves
// what runs as it is.
const Refused = "workloads refused: "

// perContainer is the least memory that a container takes, in bytes: its shim, a small program,
// its tables in the kernel, the end of its output are 6 MiB. The rest is for the files of all
// those programs, which the kernel would read again and again where it has no room to keep them.
const perContainer = 8 << 20

// MostOf is how many containers fit into memory, in bytes; 0: not known, any number.
func MostOf(memory uint64) int { return int(min(memory/perContainer, 4096)) }

// KeyFile is where a node has the key of its projects, below STATE.
const KeyFile = "identity/projects.key"

// MaxText is the size of a Compose file that a node takes, in bytes.
const MaxText = 1 << 20

// Why an apply is refused.
var (
	ErrName     = errors.New("a project name has at most 63 lower-case letters, digits, hyphens and underscores, the first one a letter or digit, and is not node")
	ErrConflict = errors.New("another project has it")
	ErrSize     = fmt.Errorf("a Compose file has at most %d bytes", MaxText)
	ErrUnknown  = errors.New("no such project")
	ErrMany     = errors.New("too many containers for this node's memory")
	ErrFull     = fmt.Errorf("at most %d containers can be on one network", workload.MaxOnNetwork)
)

// Store keeps the projects of a node. Its methods may be called from any goroutine.
type Store struct {
	// Allow is what node.yaml allows containers. A project that asks for more is not
	// taken. Set it before the store is used.
	Allow []rights.Allow
	// Outdated says of which of all, by ID, there is a container that runs from another
	// image than the name stands for by now: an apply replaces it too. nil: of none. Set it
	// before the store is used.
	Outdated func(all []workload.Container) map[string]bool
	// Most is how many containers there can be; 0: any number. What is wanted by then stays
	// wanted. Set it before the store is used.
	Most int
	// Key is what applied files are sealed with; "": there is none, and they lie in the
	// clear. Seal says whether what is written is sealed: the release in the node's other
	// slot may be one that reads nothing else than Compose files. Files of both kinds are
	// read. Set both before the store is used.
	Key  sealed.Key
	Seal bool

	dir     string
	changed chan struct{}

	mu  sync.Mutex // guards what is below, and changes on disk
	own []workload.Container
	// applied are the projects as they lie on the disk, by name; nil: not read yet.
	applied map[string]parsed
	changes uint64
}

// parsed is a project's file, parsed once: after that only an apply changes it.
type parsed struct {
	containers []workload.Container
	err        error // this release refuses the file
	locked     bool  // err says that it cannot be opened: nobody knows what is in it
}

// Open makes a store of the projects in dir, which need not exist, and of own, the
// containers of node.yaml.
func Open(dir string, own []workload.Container) *Store {
	return &Store{dir: dir, own: own, changed: make(chan struct{}, 1)}
}

// Changed receives after an apply or removal; several in a row may be one.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// Generation counts applies and removals since the store was opened. What [Store.Readable]
// returns afterwards has them all.
func (s *Store) Generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes
}

// Containers is all that is wanted. An applied file that this release refuses, or that
// cannot be opened, is an error: what runs of it is better left alone than taken down.
func (s *Store) Containers() ([]workload.Container, error) {
	all, locked, err := s.Readable()
	for _, name := range slices.Sorted(maps.Keys(locked)) {
		return nil, fmt.Errorf("project %s: %w", name, locked[name])
	}
	return all, err
}

// Readable is what is wanted without the projects that cannot be opened, for want of their
// key as a rule: locked says why, by name. They can be applied anew, and removed.
func (s *Store) Readable() (all []workload.Container, locked map[string]error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	projects, err := s.read(func(string) bool { return false })
	if err != nil {
		return nil, nil, err
	}
	locked = make(map[string]error)
	for name, p := range s.applied {
		if p.locked {
			locked[name] = p.err
		}
	}
	all, err = merge(projects, "")
	return all, locked, err
}

// Projects are the names of the applied projects, in order.
func (s *Store) Projects() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names()
}

// Apply makes text the Compose file of the project: its containers take the place of
// those that the project had. With check nothing changes. Warnings are what the file
// says that means nothing here. The error is *[nodeconfig.Problems] for a mistake in
// the file, or wraps one of this package's or [workload.ErrNotAllowed].
//
// After a power cut the project has its old file or the new one, and once Apply has
// returned it has the new one.
func (s *Store) Apply(project string, text []byte, check bool) (Plan, []nodeconfig.Problem, error) {
	switch {
	case !ValidName(project):
		return nil, nil, fmt.Errorf("project %q: %w", project, ErrName)
	case len(text) > MaxText:
		return nil, nil, fmt.Errorf("project %s: %w", project, ErrSize)
	}
	containers, warnings, err := compose.Parse(project, project+suffix, text)
	if err != nil {
		return nil, warnings, err
	}
	var denied []error
	for _, c := range containers {
		if err := workload.Denied(c, s.Allow); err != nil {
			denied = append(denied, fmt.Errorf("container %s: %w", c.ID, err))
		}
	}
	if err := errors.Join(denied...); err != nil {
		return nil, warnings, err
	}
	outdated := s.outdated(containers) // before they are replaced
	plan, err := s.change(project, containers, func() error {
		if check {
			return nil
		}
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
		if err := s.write(project, text); err != nil {
			return err
		}
		s.applied[project] = parsed{containers: containers}
		s.changes++
		return nil
	})
	if err == nil && !check {
		s.tell()
	}
	return plan.with(outdated, containers), warnings, err
}

// Remove forgets the project: its containers are to go, its volumes stay.
func (s *Store) Remove(project string) (Plan, error) {
	if !ValidName(project) {
		return nil, fmt.Errorf("project %q: %w", project, ErrName)
	}
	plan, err := s.change(project, nil, func() error {
		err := durable.Remove(s.path(project))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("project %s: %w", project, ErrUnknown)
		}
		delete(s.applied, project)
		s.changes++
		return err
	})
	if err == nil {
		s.tell()
	}
	return plan, err
}

// Check says what would become of the containers of node.yaml if own were in their
// place, and whether that goes with the projects.
func (s *Store) Check(own []workload.Container) (Plan, error) {
	plan, err := s.change(Node, own, func() error { return nil })
	return plan.with(s.outdated(own), own), err
}

func (s *Store) outdated(all []workload.Container) map[string]bool {
	if s.Outdated == nil {
		return nil
	}
	return s.Outdated(all)
}

// change has the project consist of containers, if that goes with the others, and
// then does what makes it last.
func (s *Store) change(project string, containers []workload.Container, do func() error) (Plan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	removed := project != Node && containers == nil
	projects, err := s.read(func(name string) bool { return removed || name == project })
	if err != nil {
		return nil, err
	}
	plan := difference(projects[project], containers)
	before := len(projects[project])
	projects[project] = containers
	all, err := merge(projects, project)
	if err != nil {
		return nil, err
	}
	if s.Most > 0 && len(all) > s.Most && len(containers) > before {
		return nil, fmt.Errorf("project %s: %w: at most %d, with it there would be %d", project, ErrMany, s.Most, len(all))
	}
	if err := do(); err != nil {
		s.applied = nil // the disk knows how far it came
		s.tell()
		return nil, err
	}
	return plan, nil
}

func (s *Store) tell() {
	select {
	case s.changed <- struct{}{}:
	default: // it was told already and has not looked yet
	}
}

func (s *Store) path(project string) string { return filepath.Join(s.dir, project+suffix) }

// read returns all projects. Those that may have a file that this release refuses have no
// containers then: one that is about to go, and all of them while one is removed. What goes
// stands in nobody's way, and several that are refused could never go otherwise. Nor have
// those that cannot be opened.
func (s *Store) read(may func(name string) bool) (map[string][]workload.Container, error) {
	if err := s.parse(); err != nil {
		return nil, err
	}
	projects := map[string][]workload.Container{Node: s.own}
	for _, name := range slices.Sorted(maps.Keys(s.applied)) {
		p := s.applied[name]
		if p.err != nil && !p.locked && !may(name) {
			return nil, fmt.Errorf("project %s: %w", name, p.err)
		}
		projects[name] = p.containers
	}
	return projects, nil
}

// parse reads the projects' files, unless they are known. A disk that fails is asked
// again the next time.
func (s *Store) parse() error {
	if s.applied != nil {
		return nil
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	applied := make(map[string]parsed, len(names))
	for _, name := range names {
		raw, err := os.ReadFile(s.path(name))
		if err != nil {
			return fmt.Errorf("project %s: %w", name, err)
		}
		if s.Seal && !sealed.Is(raw) { // from a release, or a time, that did not seal it
			if err := s.write(name, raw); err != nil {
				log.Printf("project %s: it stays in the clear: %v", name, err)
			}
		}
		text, err := Text(raw, s.Key)
		if err != nil {
			applied[name] = parsed{err: err, locked: true}
			continue
		}
		containers, warnings, err := compose.ParseTaken(name, name+suffix, text)
		for _, w := range warnings {
			log.Printf("project %s: %s", name, nodeconfig.Public(w))
		}
		applied[name] = parsed{containers: containers, err: nodeconfig.Hide(err)}
	}
	s.applied = applied
	return nil
}

// write replaces a project's file, sealed where that is asked for.
func (s *Store) write(project string, text []byte) error {
	if s.Seal {
		var err error
		clear := text
		text, err = s.Key.Seal(clear)
		if errors.Is(err, sealed.ErrDamaged) {
			log.Printf("project %s: it gets a new key: %v; projects that were sealed before have to be applied anew", project, err)
			if err := s.Key.SetAside(); err != nil {
				return err
			}
			text, err = s.Key.Seal(clear)
		}
		if err != nil {
			return err
		}
	}
	return durable.Replace(s.path(project), text, 0o600)
}

// AnySealed says whether a project in dir is sealed. One that cannot be read may be.
func AnySealed(dir string) bool {
	names, err := Open(dir, nil).names()
	return err != nil || slices.ContainsFunc(names, func(name string) bool {
		raw, err := os.ReadFile(filepath.Join(dir, name+suffix))
		return err != nil || sealed.Is(raw)
	})
}

// Text is the Compose file in a project's file, which is sealed with the key or in the
// clear.
func Text(raw []byte, key sealed.Key) ([]byte, error) {
	if !sealed.Is(raw) {
		return raw, nil
	}
	return key.Open(bytes.NewReader(raw), MaxText)
}

func (s *Store) names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("projects: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && ValidName(name) {
			names = append(names, name)
		}
	}
	return names, nil // ReadDir sorts
}

// ValidName says whether an operator's project can be called so: as compose-go has it, and
// what can be a file's name.
func ValidName(name string) bool {
	if name == "" || len(name) > 63 || name+suffix == Node {
		return false
	}
	for i, r := range name {
		inside := r == '-' || r == '_'
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || inside && i > 0) {
			return false
		}
	}
	return true
}

// merge is all projects' containers by name. Two that publish one port are an error
// that names both projects; newest, if it is one of them, is the one that asks for what
// another has.
func merge(projects map[string][]workload.Container, newest string) ([]workload.Container, error) {
	names := slices.Sorted(maps.Keys(projects))
	if i := slices.Index(names, newest); i >= 0 {
		names = append(slices.Delete(names, i, i+1), newest)
	}
	var all []workload.Container
	ports, shared := make(map[string]string), make(networks)
	for _, name := range names {
		for _, c := range projects[name] {
			for _, p := range c.Ports {
				key := fmt.Sprintf("port %d/%s", p.HostPort, p.Protocol)
				if other, taken := ports[key]; taken && other != name {
					// Within a project the parser knows addresses and lines.
					return nil, fmt.Errorf("%s of project %s: %w: %s", key, name, ErrConflict, other)
				}
				ports[key] = name
			}
			for _, a := range c.Networks {
				if err := shared.add(name, a); err != nil {
					return nil, err
				}
			}
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b workload.Container) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// networks are what projects say of those that they share, by name.
type networks map[string]*shared

type shared struct {
	owner    string // the first project whose it is; "": only others' so far
	internal bool
	members  int
}

// add puts a container of the project on a network. Two projects that differ over where
// it leads are an error that names both.
func (n networks) add(project string, a workload.Attachment) error {
	one := n[a.Network]
	if one == nil {
		one = &shared{}
		n[a.Network] = one
	}
	if one.members++; one.members > workload.MaxOnNetwork {
		return fmt.Errorf("network %s of project %s: %w", a.Network, project, ErrFull)
	}
	switch {
	case a.External:
	case one.owner == "":
		one.owner, one.internal = project, a.Internal
	case one.internal != a.Internal:
		return fmt.Errorf("network %s of project %s, internal or not: %w: %s", a.Network, project, ErrConflict, one.owner)
	}
	return nil
}
