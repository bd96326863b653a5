package compose

import (
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"kogge.example/agent/workload"
)

// declared reads the volumes at the top: names, and the folders they stand for.
func (p *parser) declared(n *yaml.Node) {
	if n.Tag == "!!null" {
		return
	}
	p.names(n, func(k, v *yaml.Node) {
		folder, named := k.Value, false
		if v.Tag != "!!null" {
			p.fields(v, map[string]func(*yaml.Node){
				"name":     func(n *yaml.Node) { folder, named = p.text(n), true },
				"external": func(n *yaml.Node) { named = p.external(n, &folder) || named },
				"driver": func(n *yaml.Node) {
					if driver := p.text(n); driver != "local" && driver != "" {
						p.report(n, "%s: %s is not supported on a node: a volume is a folder on STATE", p.at.shown, driver)
					}
				},
			})
		}
		if !name(folder) {
			p.report(k, "volume name %q: use letters, digits, -, _ and ., at most 63", folder)
		}
		if !named {
			folder = workload.Join(p.project, folder)
		}
		p.volumes[k.Value] = folder
	})
}

// external says whether something of the top level is the node's rather than the
// project's; in its older form it has the name that the node knows it by.
func (p *parser) external(n *yaml.Node, name *string) bool {
	if n.Kind == yaml.MappingNode {
		p.fields(n, map[string]func(*yaml.Node){"name": func(n *yaml.Node) { *name = p.text(n) }})
		return true
	}
	return p.boolean(n)
}

// name says whether s can be that of a volume, a config or a secret: a file's on
// any file system.
func name(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i, r := range s {
		letter := r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || !strings.ContainsRune("-_.", r)) {
			return false
		}
	}
	return true
}

func (s *service) tmpfs(n *yaml.Node) {
	s.list(n, "tmpfs", func(item *yaml.Node) {
		folder, options, _ := strings.Cut(s.text(item), ":")
		t := workload.Tmpfs{Target: s.target(item, folder)}
		for option := range strings.SplitSeq(options, ",") {
			if option == "" {
				continue
			}
			name, value, _ := strings.Cut(option, "=")
			switch name {
			case "size":
				t.Size = s.tmpfsSize(item, value)
			case "mode":
				mode, err := strconv.ParseUint(value, 8, 12)
				if err != nil {
					s.report(item, "tmpfs: %q is not a mode", value)
				}
				t.Mode = uint32(mode)
			case "uid":
				t.UID = s.owner(item, name, value)
			case "gid":
				t.GID = s.owner(item, name, value)
			case "noexec":
				t.NoExec = true
			case "rw", "exec", "nosuid", "nodev": // it is all that
			default:
				s.report(item, "tmpfs: option %q is not supported on a node", option)
			}
		}
		if t.Target != "" {
			s.Tmpfs = append(s.Tmpfs, t)
		}
	})
}

// owner is the number of a user or a group.
func (s *service) owner(n *yaml.Node, what, value string) uint32 {
	id, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		s.report(n, "tmpfs: %s: %q is not a number", what, value)
	}
	return uint32(id)
}

func (s *service) tmpfsSize(n *yaml.Node, value string) int64 {
	var u types.UnitBytes
	if err := u.DecodeMapstructure(value); err != nil || u <= 0 {
		s.report(n, "tmpfs: %q is not a size", value)
		return 0
	}
	return int64(u)
}

// mount is one entry of a service's volumes.
type mount struct {
	types.ServiceVolumeConfig
	subpath bool
	tmpfs   workload.Tmpfs
}

func (s *service) volumes(n *yaml.Node) {
	s.list(n, "volumes", func(item *yaml.Node) {
		if item.Kind == yaml.MappingNode {
			s.longVolume(item)
			return
		}
		text := s.text(item)
		if text == "" {
			return
		}
		v, err := format.ParseVolume(text)
		if err != nil {
			s.report(item, "volume %q: %v", text, err)
			return
		}
		s.volume(item, mount{ServiceVolumeConfig: v, subpath: v.Volume != nil && v.Volume.Subpath != ""})
	})
}

func (s *service) longVolume(n *yaml.Node) {
	var m mount
	before := s.reported()
	s.fields(n, map[string]func(*yaml.Node){
		"type":      func(n *yaml.Node) { m.Type = s.text(n) },
		"source":    func(n *yaml.Node) { m.Source = s.text(n) },
		"target":    func(n *yaml.Node) { m.Target = s.text(n) },
		"read_only": func(n *yaml.Node) { m.ReadOnly = s.boolean(n) },
		"bind": func(n *yaml.Node) {
			m.Bind = &types.ServiceVolumeBind{}
			s.longBind(n, m.Bind)
		},
		"volume": func(n *yaml.Node) {
			s.fields(n, map[string]func(*yaml.Node){"nocopy": func(n *yaml.Node) {
				m.Volume = &types.ServiceVolumeVolume{NoCopy: s.boolean(n)}
			}})
		},
		"tmpfs": func(n *yaml.Node) {
			s.fields(n, map[string]func(*yaml.Node){
				"size": func(n *yaml.Node) { m.tmpfs.Size = s.tmpfsSize(n, s.text(n)) },
				"mode": func(n *yaml.Node) { m.tmpfs.Mode = s.mode(n) },
			})
		},
	})
	if s.reported() == before {
		s.volume(n, m)
	}
}

func (s *service) volume(n *yaml.Node, m mount) {
	folder, declared := s.parser.volumes[m.Source]
	switch {
	case m.Type == types.VolumeTypeBind:
		s.bind(n, m.ServiceVolumeConfig)
	case m.Type == types.VolumeTypeTmpfs && m.Source == "":
		if m.tmpfs.Target = s.target(n, m.Target); m.tmpfs.Target != "" {
			s.Tmpfs = append(s.Tmpfs, m.tmpfs)
		}
	case m.Type != types.VolumeTypeVolume:
		s.report(n, "volume: type %q is not supported on a node: use volume, tmpfs or bind", m.Type)
	case m.Source == "":
		s.report(n, "volume on %s: give it a name, or use tmpfs", m.Target)
	case !declared && !s.part:
		s.report(n, "volume %s is not declared under \"volumes:\" at the top", m.Source)
	case m.subpath:
		s.report(n, "volume %s: %s", m.Source, byPath()["services.*.volumes.volume.subpath"].Note)
	default:
		if target := s.target(n, m.Target); target != "" {
			s.Volumes = append(s.Volumes, workload.Volume{
				Name: folder, Target: target, ReadOnly: m.ReadOnly, NoCopy: m.Volume != nil && m.Volume.NoCopy,
			})
		}
	}
}
