package serve

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"kogge.example/agent/door"
	"kogge.example/update/golden"
)

// changing are figures of the machine that runs the test.
var changing = regexp.MustCompile(`(?m)^((?:kogge_certificate_\w+|kogge_memory_\w+|kogge_state_\w+) ).*$|kernel="[^"]*"`)

// TestMetrics shows what Prometheus gets.
func TestMetrics(t *testing.T) {
	address, f, _ := ready(t, func(c *Config) {
		c.Machine.Cgroups = t.TempDir()
		dir := filepath.Join(c.Machine.Cgroups, "workload", "db")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(c.Machine.Cgroups, "cgroup.controllers"), "cpu memory pids\n")
		write(t, filepath.Join(dir, "memory.current"), "4096\n")
		write(t, filepath.Join(dir, "cpu.stat"), "usage_usec 1500000\nuser_usec 1\n")
	})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{f.Certificate()}}}}
	r, err := client.Get("https://" + address + door.MetricsPath)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%d %s, %v", r.StatusCode, body, err)
	}
	text := changing.ReplaceAllStringFunc(string(body), func(s string) string {
		if m := changing.FindStringSubmatch(s); m[1] != "" {
			return m[1] + "N"
		}
		return `kernel="N"`
	})
	golden.Compare(t, "metrics.txt", text)
}
