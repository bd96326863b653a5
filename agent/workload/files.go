package workload

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

	"kogge.example/init/nodeconfig"
)

// files are the names of what WriteFiles writes, all seen in the container's /etc.
var files = []string{"resolv.conf", "hosts", "hostname"}

// WriteFiles writes resolv.conf, hosts and hostname of the instance name of c. peers are
// those that it can reach, itself included, by what it calls them. They are written in
// place, not renamed, because a running container has them mounted; text that is the
// same is not written again.
func (e *Engine) WriteFiles(c Container, name string, peers map[string]netip.Addr) error {
	folder := filepath.Join(e.paths.Files, name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("files of %s: %w", c.ID, err)
	}
	resolv, err := os.ReadFile(e.paths.Resolv)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("node's resolv.conf: %w", err)
	}
	for file, text := range map[string][]byte{
		"resolv.conf": resolvConf(c, resolv),
		"hosts":       hosts(c, peers),
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

// give writes c's configs and secrets, anew for each start. Their folder lies in memory
// and nobody but root may enter it: a container sees the file itself, mounted.
func (e *Engine) give(c Container, name string) error {
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

func write(path string, f File) error {
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
	if err := e.unhold(name); err != nil {
		return fmt.Errorf("files of %s: %w", name, err)
	}
	if err := os.RemoveAll(filepath.Join(e.paths.Files, name)); err != nil {
		return fmt.Errorf("files of %s: %w", name, err)
	}
	return nil
}

// resolvConf is the node's without servers on the node's loopback, which a
// container on a network of its own cannot reach.
func resolvConf(c Container, node []byte) []byte {
	if c.Shares(nodeconfig.HostNetwork) {
		return node
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(node)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] == "nameserver" {
			if a, err := netip.ParseAddr(fields[1]); err == nil && a.IsLoopback() {
				continue
			}
		}
		out.WriteString(line)
	}
	return out.Bytes()
}

// hosts gives the container its own name, those that it asked for and those of its
// peers: on one node that replaces a name server.
func hosts(c Container, peers map[string]netip.Addr) []byte {
	var out bytes.Buffer
	out.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	names := make([]string, 0, len(peers))
	for name := range peers {
		names = append(names, name)
	}
	slices.Sort(names)
	if c.Shares(nodeconfig.HostNetwork) { // nobody has an address for it
		fmt.Fprintf(&out, "127.0.1.1\t%s\n", c.Hostname)
	}
	for _, h := range c.ExtraHosts { // first: they may speak of a peer otherwise
		fmt.Fprintf(&out, "%s\t%s\n", h.Addr, h.Name)
	}
	_, own := Split(c.ID)
	for _, name := range names {
		if name == own && c.Hostname != own {
			fmt.Fprintf(&out, "%s\t%s %s\n", peers[name], c.Hostname, name)
			continue
		}
		fmt.Fprintf(&out, "%s\t%s\n", peers[name], name)
	}
	return out.Bytes()
}
