// Package redaction takes the secrets out of node.yaml and Compose files, for eyes
// that may see what a node runs and not with which passwords.
//
// In comes a text, out go the same keys with the values that are on the list of what
// may be shown, and [Hidden] in the place of every other one. Secrets hide anywhere:
// in environment, command, health checks, labels, extensions, comments. Hence a list
// of what is shown, not of what is hidden: a key that nobody thought of is hidden.
// Comments, anchors and the writer's order of blanks are gone.
package redaction

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"

	"kogge.example/agent/compose"
)

// Hidden stands for a value that is not shown.
const Hidden = "<hidden>"

// shownNode are the values of node.yaml that are shown, as paths without the indexes
// of lists, with a * for each name that the file gives.
var shownNode = []string{
	"hostname",
	"network.match", "network.dhcp", "network.ipv6", "network.addresses", "network.gateway", "network.dns", "network.search", "network.mtu", "network.mdns", "network.forward", "containers.pool",
	"network.routes.to", "network.routes.via", "network.routes.metric",
	"time.servers", "state.onCorrupt",
	"allow.container", "allow.privileged", "allow.capabilities", "allow.devices", "allow.binds.path", "allow.binds.readOnly", "allow.host", "allow.unconfined",
	"assess.for", "assess.timeout", "assess.containers", "assess.peers", "assess.checks.tcp", "assess.checks.container",
	"update.window", "update.days", "update.zone", "update.usb",
}

// namesNode are maps of node.yaml whose keys are shown though their values are not.
var namesNode = []string{"labels.*"}

// shownCompose are the values of a Compose file that are shown: those that have a form
// in which no secret fits, or without which nobody can say what a node runs.
var shownCompose = []string{
	"version", "name",
	"services.*.cap_add", "services.*.cap_drop", "services.*.cpus", "services.*.depends_on", "services.*.depends_on.*.condition",
	"services.*.depends_on.*.required", "services.*.depends_on.*.restart",
	"services.*.deploy.mode", "services.*.deploy.replicas",
	"services.*.deploy.resources.limits.cpus", "services.*.deploy.resources.limits.memory", "services.*.deploy.resources.limits.pids",
	"services.*.deploy.restart_policy.condition", "services.*.deploy.restart_policy.max_attempts",
	"services.*.expose", "services.*.healthcheck.disable", "services.*.healthcheck.interval", "services.*.healthcheck.retries",
	"services.*.healthcheck.start_interval", "services.*.healthcheck.start_period", "services.*.healthcheck.timeout",
	"services.*.image", "services.*.init", "services.*.mem_limit", "services.*.network_mode", "services.*.networks", "services.*.pids_limit",
	"services.*.platform", "services.*.ports", "services.*.ports.host_ip", "services.*.ports.mode", "services.*.ports.protocol",
	"services.*.ports.published", "services.*.ports.target", "services.*.privileged", "services.*.pull_policy", "services.*.read_only", "services.*.restart",
	"services.*.scale", "services.*.shm_size", "services.*.stop_grace_period", "services.*.stop_signal", "services.*.tty",
	"services.*.ulimits.*.hard", "services.*.ulimits.*.soft", "services.*.user",
	"services.*.volumes", "services.*.volumes.type", "services.*.volumes.source", "services.*.volumes.target", "services.*.volumes.read_only",
	"networks.*.driver", "networks.*.internal", "networks.*.external", "volumes.*.driver", "volumes.*.external", "volumes.*.name",
}

// namesCompose are maps of a Compose file whose keys are shown though their values are
// not.
var namesCompose = []string{
	"services.*.environment.*", "services.*.labels.*", "services.*.annotations.*", "services.*.sysctls.*", "services.*.networks.*",
	"configs.*", "secrets.*", "networks.*", "volumes.*", "services.*", "services.*.depends_on.*", "services.*.ulimits.*",
}

// keys is a tree of what is known of a file.
type keys struct {
	below map[string]*keys
	shown bool // the values here
}

func (k *keys) add(path string, shown bool) {
	for part := range strings.SplitSeq(path, ".") {
		if k.below[part] == nil {
			k.below[part] = &keys{below: map[string]*keys{}}
		}
		k = k.below[part]
	}
	k.shown = k.shown || shown
}

// composeKeys are those of the specification.
var composeKeys = sync.OnceValue(func() *keys {
	all := &keys{below: map[string]*keys{}}
	for _, k := range compose.Keys() {
		all.add(k.Path, false)
	}
	for _, path := range namesCompose {
		all.add(path, false)
	}
	for _, path := range shownCompose {
		all.add(path, true)
	}
	return all
})

// nodeKeys are those of node.yaml, with Compose's below workloads.
var nodeKeys = sync.OnceValue(func() *keys {
	all := &keys{below: map[string]*keys{}}
	for _, path := range shownNode {
		all.add(path, true)
	}
	for _, path := range namesNode {
		all.add(path, false)
	}
	all.below["workloads"] = composeKeys()
	return all
})

// Text is a text without its secrets, and the values that were hidden.
type Text struct {
	Shown  []byte
	Hidden []string
}

// Node takes the secrets out of a node.yaml, Compose out of a Compose file. The error,
// of a text that is no YAML, says nothing of what is in it.
func Node(text []byte) (Text, error)    { return redact(text, nodeKeys()) }
func Compose(text []byte) (Text, error) { return redact(text, composeKeys()) }

func redact(text []byte, known *keys) (Text, error) {
	var doc yaml.Node
	if yaml.Unmarshal(text, &doc) != nil {
		return Text{}, errors.New("this is not YAML, and is left out")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return Text{Shown: []byte("{}\n")}, nil
	}
	r := redactor{}
	out := r.value(doc.Content[0], known)
	if r.values > maxValues {
		return Text{}, fmt.Errorf("it has more than %d values, and is left out", maxValues)
	}
	shown, err := yaml.Dump(out)
	return Text{shown, r.hidden}, err
}

// maxValues bounds what aliases expand to.
const maxValues = 100_000

type redactor struct {
	values int
	hidden []string
}

// value is the shown form of n, of which known says what may be seen; nil: nothing.
func (r *redactor) value(n *yaml.Node, known *keys) *yaml.Node {
	if r.values++; r.values > maxValues {
		return scalar(Hidden)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return r.value(n.Alias, known)
	case yaml.MappingNode:
		if known == nil || len(known.below) == 0 {
			return r.hide(n)
		}
		return r.mapping(n, known)
	case yaml.SequenceNode:
		if known == nil {
			return r.hide(n)
		}
		out := &yaml.Node{Kind: yaml.SequenceNode}
		for _, one := range n.Content {
			out.Content = append(out.Content, r.value(one, known))
		}
		return out
	}
	switch {
	case n.Value == "":
		return scalar("")
	case known == nil:
		return r.hide(n)
	case known.shown && plainValue.MatchString(n.Value):
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: n.Tag, Value: n.Value}
	case known.below["*"] != nil: // NAME=value of a map that was written as a list
		if name, value, ok := strings.Cut(n.Value, "="); ok && plainName.MatchString(name) {
			r.remember(value)
			return scalar(name + "=" + Hidden)
		}
	}
	return r.hide(n)
}

// plainName is a name of a variable or label; what else stands before a = may be more
// than a name.
var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_./-]{0,100}$`)

// plainValue is a value of a shown key; text of another form is not what belongs there.
var plainValue = regexp.MustCompile(`^[A-Za-z0-9_./:@,*%+~\[\]-]{1,255}$`)

func (r *redactor) mapping(n *yaml.Node, known *keys) *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode}
	others := 0
	var pairs func(*yaml.Node)
	pairs = func(n *yaml.Node) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if k.Tag == "!!merge" {
				r.merged(v, pairs)
				continue
			}
			below := known.below[k.Value]
			if below == nil && plainName.MatchString(k.Value) {
				below = known.below["*"]
			}
			if below == nil {
				others++
				r.hide(k)
				r.hide(v)
				continue
			}
			out.Content = append(out.Content, scalar(k.Value), r.value(v, below))
		}
	}
	pairs(n)
	if others > 0 {
		out.Content = append(out.Content, scalar(Hidden), scalar(fmt.Sprintf("%d more", others)))
	}
	return out
}

// merged calls pairs for each map of a merge key. An alias may lead back to itself.
func (r *redactor) merged(v *yaml.Node, pairs func(*yaml.Node)) {
	if r.values++; r.values > maxValues {
		return
	}
	switch v.Kind {
	case yaml.AliasNode:
		r.merged(v.Alias, pairs)
	case yaml.MappingNode:
		pairs(v)
	case yaml.SequenceNode:
		for _, one := range v.Content {
			r.merged(one, pairs)
		}
	}
}

func scalar(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

// hide remembers all that is in n.
func (r *redactor) hide(n *yaml.Node) *yaml.Node {
	if r.values++; r.values > maxValues {
		return scalar(Hidden)
	}
	if n.Kind == yaml.AliasNode {
		return r.hide(n.Alias)
	}
	if n.Kind == yaml.ScalarNode {
		r.remember(n.Value)
	}
	for _, one := range n.Content {
		r.hide(one)
	}
	return scalar(Hidden)
}

func (r *redactor) remember(value string) { r.hidden = append(r.hidden, value) }

// Mask returns what puts [Hidden] in the place of hidden values in other texts: the
// log of a program that was given one may repeat it, as it is, quoted or as part of an
// address. Values of few characters, or of digits alone, stay: they are no secrets, and
// would make logs unreadable.
func Mask(values []string) *strings.Replacer {
	seen := map[string]bool{}
	add := func(value string) {
		value = strings.TrimSpace(value)
		if len(value) < shortestSecret || strings.Trim(value, "0123456789.:") == "" || len(seen) > maxMasks {
			return
		}
		quoted := strconv.Quote(value)
		for _, form := range []string{value, quoted[1 : len(quoted)-1], url.QueryEscape(value), url.PathEscape(value)} {
			seen[form] = true
		}
	}
	for _, value := range values {
		for line := range strings.Lines(value) {
			add(line)
			if _, after, ok := strings.Cut(line, "="); ok { // --password=…
				add(after)
			}
		}
	}
	// A value that begins with another one goes as a whole: of two the longer first.
	all := slices.SortedFunc(maps.Keys(seen), func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	var pairs []string
	for _, value := range all {
		pairs = append(pairs, value, Hidden)
	}
	return strings.NewReplacer(pairs...)
}

const (
	shortestSecret = 6
	maxMasks       = 20_000
)
