package nodeconfig

import (
	"bytes"

	"go.yaml.in/yaml/v4"
)

// Marshal writes the settings as node.yaml, in one fixed order and with the
// defaults that depend on other keys filled in. Parsing the result gives the same
// Config, but for the line on which its workloads start. Comments are gone, except
// in the workloads, whose text is kept.
func (c Config) Marshal() []byte {
	out, err := yaml.Dump(c)
	if err != nil {
		panic("nodeconfig: " + err.Error()) // a Config has nothing that YAML cannot hold
	}
	if bytes.Equal(out, []byte("{}\n")) {
		out = nil
	}
	if len(c.Workloads.Text) > 0 {
		out = append(out, "workloads:\n"...)
		out = append(out, bytes.TrimLeft(c.Workloads.Text, "\n")...)
	}
	return out
}

// MarshalYAML leaves out what a route does not have.
func (r Route) MarshalYAML() (any, error) {
	out := struct {
		To     string `yaml:"to"`
		Via    string `yaml:"via,omitempty"`
		Metric uint32 `yaml:"metric,omitempty"`
	}{To: r.To.String(), Metric: r.Metric}
	if r.Via.IsValid() {
		out.Via = r.Via.String()
	}
	return out, nil
}
