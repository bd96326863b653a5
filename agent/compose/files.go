package compose

import (
	"cmp"
	"encoding/base64"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"kogge.example/agent/workload"
)

// stored is a config or a secret of the top level.
type stored struct {
	data []byte
	bad  bool // already reported
}

// mounted is a service's use of one.
type mounted struct {
	node   *yaml.Node
	kind   string // "config" or "secret"
	source string
	file   workload.File
}

// stores reads the configs or the secrets of the top level.
func (p *parser) stores(n *yaml.Node, to map[string]stored) {
	if n.Tag == "!!null" {
		return
	}
	p.names(n, func(k, v *yaml.Node) {
		if !name(k.Value) {
			p.report(k, "%s: use letters, digits, -, _ and ., at most 63", p.at.shown)
			return
		}
		var one stored
		given := false
		before := p.reported()
		p.fields(v, map[string]func(*yaml.Node){
			"content": func(n *yaml.Node) { one.data, given = p.content(n), true },
		})
		one.bad = p.reported() > before
		if !given && !one.bad && !p.part {
			p.report(k, "%s has no content", p.at.shown)
			one.bad = true
		}
		to[k.Value] = one
	})
}

// content is a text, or in base64 what is none.
func (p *parser) content(n *yaml.Node) []byte {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!binary" {
		data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err != nil {
			p.report(n, "this is not base64: %v", err)
		}
		return data
	}
	return []byte(p.text(n))
}

// store reads the configs or the secrets of a service.
func (s *service) store(n *yaml.Node, from map[string]stored, kind string) {
	at := s.at
	s.list(n, at.shown, func(item *yaml.Node) {
		m := mounted{node: item, kind: kind, file: workload.File{Mode: 0o444, Secret: kind == "secret"}}
		var target string
		before := s.reported()
		if item.Kind == yaml.MappingNode {
			s.fields(item, map[string]func(*yaml.Node){
				"source": func(n *yaml.Node) { m.source = s.text(n) },
				"target": func(n *yaml.Node) { target = s.text(n) },
				"uid":    func(n *yaml.Node) { m.file.UID = int(s.integer(n, 0, math.MaxInt32)) },
				"gid":    func(n *yaml.Node) { m.file.GID = int(s.integer(n, 0, math.MaxInt32)) },
				"mode":   func(n *yaml.Node) { m.file.Mode = s.mode(n) },
			})
		} else {
			m.source = s.text(item)
		}
		one, known := from[m.source]
		switch {
		case s.reported() > before || one.bad:
			return
		case !known && s.part:
			return
		case !known:
			s.report(item, "%s: %s %s is not declared under \"%ss:\" at the top", at.shown, kind, m.source, kind)
			return
		case m.file.Mode&^0o777 != 0:
			s.report(item, "%s: mode %#o: it sets permissions only, up to 0777", at.shown, m.file.Mode)
			return
		}
		target = cmp.Or(target, m.source)
		switch {
		case path.IsAbs(target):
		case kind == "secret":
			target = "/run/secrets/" + target
		default:
			target = "/" + target
		}
		if m.file.Target = s.target(item, target); m.file.Target == "" {
			return
		}
		m.file.Data = one.data
		s.stored = append(s.stored, m)
	})
}

// mode reads permissions: octal where it is written so or quoted, otherwise the
// number that it is, as YAML has it.
func (p *parser) mode(n *yaml.Node) uint32 {
	text, base := p.text(n), 10
	digits := strings.TrimPrefix(strings.TrimPrefix(text, "0o"), "0O")
	if n.Tag == "!!str" || digits != text || strings.HasPrefix(text, "0") {
		base = 8
	}
	mode, err := strconv.ParseUint(digits, base, 12)
	if err != nil {
		p.report(n, "expected a mode such as 0440, got %s", describe(n))
	}
	return uint32(mode)
}

// files gives the container its configs and secrets.
func (s *service) files(name *yaml.Node) {
	total := 0
	for _, m := range s.stored {
		s.Files = append(s.Files, m.file)
		total += len(m.file.Data)
	}
	if total > workload.MaxFiles {
		s.report(name, "%s: configs and secrets of %d bytes: at most %d fit", s.at.shown, total, workload.MaxFiles)
	}
	slices.SortStableFunc(s.Files, func(a, b workload.File) int { return strings.Compare(a.Target, b.Target) })
}
