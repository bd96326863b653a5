package registry

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kogge.example/update/golden"
)

// TestRegistries prints what becomes of settings: the servers of a registry in the
// order in which they are asked, or why the settings are refused.
func TestRegistries(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	ca, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, c := range []struct{ settings, host string }{
		{`{}`, "registry.example"},
		{`{}`, "docker.io"},
		{`{}`, "localhost:5000"},
		{`{}`, "[::1]:5000"},
		{`{"localhost:5000": {"ca": CA}}`, "localhost:5000"},
		{`{"r.example": {"insecure": true}}`, "r.example"},
		{`{"r.example": {"user": "u", "password": "hunter2", "ca": CA}}`, "r.example"},
		{`{"r.example": {"mirrors": [{"url": "https://m.example:5000"}, {"url": "http://127.0.0.1:80/cache/"}, {"url": "http://n.example", "insecure": true}]}}`, "r.example"},
		{`{"docker.io": {"mirrors": [{"url": "https://m.example", "user": "u", "password": "hunter2"}]}}`, "docker.io"},
		{`{"docker.io": {"mirrors": [{"url": "https://m.example:5000/hub"}, {"url": "http://m.example:5000", "insecure": true}]}, "m.example:5000": {"user": "u", "password": "hunter2", "ca": CA}}`, "docker.io"},
		{`{"docker.io": {"mirrors": [{"url": "https://m.example"}, {"url": "https://n.example", "user": "n", "password": "hunter2"}]}, "m.example": {"insecure": true}, "n.example": {"user": "u", "password": "hunter3"}}`, "docker.io"},
		{`{"r.example": {"mirrors": [{"url": "http://m.example"}]}}`, "r.example"},
		{`{"r.example": {"mirrors": [{"url": "https://m.example", "insecure": true}]}}`, "r.example"},
		{`{"r.example": {"mirrors": [{"url": "https://u:hunter2@m.example"}]}}`, "r.example"},
		{`{"r.example": {"mirrors": [{"url": "https://u:hunter2@m example"}]}}`, "r.example"},
		{`{"r.example": {"mirrors": [{"url": "ftp://m.example"}]}}`, "r.example"},
		{`{"r.example": {"mirrors": [{"url": "m.example"}]}}`, "r.example"},
		{`{"r.example": {"mirrors": [{"url": "https://m.example?token=hunter2"}]}}`, "r.example"},
		{`{"r.example": {"user": "u"}}`, "r.example"},
		{`{"r.example": {"password": "hunter2"}}`, "r.example"},
		{`{"r.example": {"insecure": true, "user": "u", "password": "hunter2"}}`, "r.example"},
		{`{"r.example": {"insecure": true, "ca": CA}}`, "r.example"},
		{`{"r.example": {"ca": "none"}}`, "r.example"},
		{`{"https://r.example": {}}`, "r.example"},
		{`{"r.example/library": {}}`, "r.example"},
		{`{"": {}}`, "r.example"},
		{`{"r.example": {"pasword": "hunter2"}}`, "r.example"},
		{`{"r.example": {"password": 7}}`, "r.example"},
		{`{"r.example": {}} {}`, "r.example"},
		{`["r.example"]`, "r.example"},
		{``, "r.example"},
	} {
		fmt.Fprintf(&b, "%s  %s\n", c.settings, c.host)
		r, err := Parse([]byte(strings.ReplaceAll(c.settings, "CA", string(ca))))
		if err != nil {
			fmt.Fprintf(&b, "    refused: %v\n", err)
			continue
		}
		endpoints, err := r.endpoints(c.host, true)
		if err != nil {
			t.Errorf("%s: %v", c.settings, err)
		}
		for _, e := range endpoints {
			fmt.Fprintf(&b, "    %s://%s%s user %q, password %v, own ca %t\n", e.scheme, e.host, e.path, e.User, e.Password, e.CA != "")
		}
	}
	golden.Compare(t, "registries.txt", b.String())
}

// TestSecret: no way of printing settings shows a password.
func TestSecret(t *testing.T) {
	r, err := Parse([]byte(`{"r.example": {"user": "u", "password": "hunter2", "mirrors": [{"url": "https://m.example", "user": "u", "password": "hunter2"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	marshalled, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	endpoints, err := r.endpoints("r.example", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		string(marshalled), fmt.Sprintf("%v", r), fmt.Sprintf("%+v", r), fmt.Sprintf("%#v", r), fmt.Sprint(r),
		fmt.Sprintf("%q", r["r.example"].Password), fmt.Sprintf("%+v", endpoints), fmt.Sprintf("%#v", r["r.example"].Mirrors),
	} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("the password is in %s", text)
		}
	}
}

func FuzzParseRegistries(f *testing.F) {
	f.Add([]byte(`{"r.example": {"user": "u", "password": "p", "mirrors": [{"url": "https://m.example/a", "ca": "x"}]}}`), "r.example")
	f.Add([]byte(`{"[::1]:5000": {"insecure": true}}`), "[::1]:5000")
	f.Fuzz(func(t *testing.T, data []byte, host string) {
		r, err := Parse(data)
		if err != nil {
			return
		}
		endpoints, err := r.endpoints(host, true)
		if err != nil {
			t.Fatalf("what was taken is refused later: %v", err)
		}
		again, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > maxRegistries {
			return // escaped, it is longer
		}
		if same, err := Parse(again); err != nil || !cmp.Equal(same, r, cmpopts.EquateEmpty()) {
			t.Errorf("written and read again, %q is %q: %v", data, again, err)
		}
		for _, e := range endpoints {
			if e.scheme == "http" && !e.Insecure && !Loopback(e.host) {
				t.Errorf("plain HTTP to %s", e.host)
			}
			if e.User != "" && e.scheme == "http" && !Loopback(e.host) {
				t.Errorf("password over plain HTTP to %s", e.host)
			}
		}
	})
}

// TestCredentials: only the server itself is told a password, and no one that it
// redirects to.
func TestCredentials(t *testing.T) {
	e := endpoint{host: "r.example:5000", Access: Access{User: "u", Password: "p"}}
	for host, want := range map[string]string{"r.example:5000": "up", "r.example": "", "cdn.example": ""} {
		user, password, err := e.credentials(host)
		if user+password != want || err != nil {
			t.Errorf("%s is told %q %q, %v", host, user, password, err)
		}
	}
}
