package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

// files are the names of what WriteFiles writes, all seen in the container's /etc.
var files = []string{"resolv.conf", "hosts", "hostname"}

// WriteFiles writes resolv.conf, hosts and hostname of the instance name of c. They are
// written in place, not renamed, because a running container has them mounted; text
// that is the same is not written again.
func (e *Engine) WriteFiles(c workload.Container, name string, v workload.View) error {
	folder := filepath.Join(e.paths.Files, name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("files of %s: %w", c.ID, err)
	}
	resolv, err := os.ReadFile(e.paths.Resolv)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("node's resolv.conf: %w", err)
	}
	for file, text := range map[string][]byte{
		"resolv.conf": resolvConf(c, v, string(resolv)),
		"hosts":       hosts(c, v),
		"hostname":    []byte(c.Hostname + "\n"),
	} {
		path := filepath.Join(folder, file)
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
			continue
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return fmt.Errorf("files of %s: %w", c.ID, err)
		}
	}
	return nil
}

// given is the file of the n-th of an instance's Files.
func (e *Engine) given(name string, n int) string {
	return filepath.Join(e.paths.Files, name, "given", strconv.Itoa(n))
}

// writeConfigs writes c's configs and secrets, anew for each start. Their folder lies in memory
// and nobody but root may enter it: a container sees the file itself, mounted.
func (e *Engine) writeConfigs(c workload.Container, name string) error {
	folder := filepath.Join(e.paths.Files, name, "given")
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("files of %s: %w", c.ID, err)
	}
	if len(c.Files) == 0 {
		return nil
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("files of %s: %w", c.ID, err)
	}
	for i, f := range c.Files {
		if err := write(e.given(name, i), f); err != nil {
			return fmt.Errorf("files of %s: %s: %w", c.ID, f.Target, err)
		}
	}
	return nil
}

func write(path string, f workload.File) error {
	mode := fs.FileMode(f.Mode).Perm()
	if mode == 0 {
		mode = 0o400
	}
	if err := os.WriteFile(path, f.Data, 0o600); err != nil {
		return err
	}
	// The owner first: a change of it takes away bits of the mode.
	if err := os.Lchown(path, f.UID, f.GID); err != nil {
		return err
	}
	return os.Chmod(path, mode) // whatever the umask
}

// RemoveFiles removes what WriteFiles and Prepare wrote for an instance; none is no
// error.
func (e *Engine) RemoveFiles(name string) error {
	if err := e.unmountBinds(name); err != nil {
		return fmt.Errorf("files of %s: %w", name, err)
	}
	if err := os.RemoveAll(filepath.Join(e.paths.Files, name)); err != nil {
		return fmt.Errorf("files of %s: %w", name, err)
	}
	return nil
}

// maxServers is how many name servers a resolver asks.
//
// Source: resolv.conf(5).
const maxServers = 3

// resolvConf names the node's server of the container's own networks first: it answers
// for its peers and asks others for the rest. Those others come behind it, for when the
// agent is away, and what else the node's own file says.
func resolvConf(c workload.Container, v workload.View, node string) []byte {
	var rest, asked []string
	host := c.Shares(rights.HostNetwork)
	for line := range strings.Lines(node) {
		switch fields := strings.Fields(line); {
		case len(fields) < 2 || strings.ContainsAny(fields[0][:1], "#;"):
		case fields[0] == "nameserver":
			// What is on the node's loopback a container does not reach, nor what is on a
			// link of the node: an eth0 of its own is another one.
			if a, err := netip.ParseAddr(fields[1]); err == nil && (host || !a.IsLoopback() && a.Zone() == "") {
				asked = append(asked, fields[1])
			}
		case (fields[0] == "search" || fields[0] == "domain") && c.Search != nil:
		// The node's own patience is none with the name server of its networks, which asks others in turn.
		case fields[0] == "options" && (c.DNSOptions != nil || v.Resolver.IsValid()):
		default:
			rest = append(rest, strings.Join(fields, " "))
		}
	}
	if c.DNS != nil {
		asked = nil
		for _, a := range c.DNS {
			asked = append(asked, a.String())
		}
	}
	if !v.Outside && !host {
		asked = nil
	}
	if v.Resolver.IsValid() {
		asked = append([]string{v.Resolver.String()}, asked...)
	}
	if c.Search != nil && !slices.Equal(c.Search, []string{"."}) {
		rest = append(rest, "search "+strings.Join(c.Search, " "))
	}
	if c.DNSOptions != nil {
		rest = append(rest, "options "+strings.Join(c.DNSOptions, " "))
	}
	var out bytes.Buffer
	for _, a := range asked[:min(len(asked), maxServers)] {
		fmt.Fprintf(&out, "nameserver %s\n", a)
	}
	for _, line := range rest {
		out.WriteString(line + "\n")
	}
	return out.Bytes()
}

// hosts gives the container its own names, those that it asked for and those of its
// peers, so that they are known also while the node's name server is away.
func hosts(c workload.Container, v workload.View) []byte {
	var out bytes.Buffer
	out.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, h := range c.ExtraHosts { // first: they may speak of a peer otherwise
		fmt.Fprintf(&out, "%s\t%s\n", h.Addr, h.Name)
	}
	if len(v.Peers) == 0 { // nobody has an address for it
		fmt.Fprintf(&out, "127.0.1.1\t%s\n", c.Hostname)
	}
	for _, p := range v.Peers {
		fmt.Fprintf(&out, "%s\t%s\n", p.Addr, strings.Join(p.Names, " "))
	}
	return out.Bytes()
}
