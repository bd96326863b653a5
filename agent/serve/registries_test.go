package serve

import (
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/registry"
	"kogge.example/update/fleet"
)

const secret = "correct horse battery"

// TestRegistries: a password goes in, is used, and comes out nowhere.
func TestRegistries(t *testing.T) {
	settings := newRegistries(t)
	address, f, _ := ready(t, func(c *Config) { c.Registries = settings })
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	asked := 0
	registry := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if user, password, _ := r.BasicAuth(); r.URL.Path != "/v2/" || user != "ada" || password != secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer registry.Close()
	host := strings.TrimPrefix(registry.URL, "https://")
	authority := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: registry.Certificate().Raw}))
	login := func(r *apiv1.LoginRequest) error {
		_, err := c.Login(timeout(t), connect.NewRequest(r))
		if err != nil && r.Password != "" && strings.Contains(err.Error(), r.Password) {
			t.Errorf("the password is in %v", err)
		}
		return err
	}
	set := func(r *apiv1.SetRegistryRequest) error {
		_, err := c.SetRegistry(timeout(t), connect.NewRequest(r))
		return err
	}
	list := func() string {
		t.Helper()
		answer, err := c.ListRegistries(timeout(t), connect.NewRequest(&apiv1.ListRegistriesRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		text := protojson.Format(answer.Msg)
		if strings.Contains(text, secret) {
			t.Errorf("the password is in %s", text)
		}
		return text
	}
	// Which authority the registry has is set before: the node's own loopback is asked by
	// HTTPS as any other place.
	has(t, login(&apiv1.LoginRequest{Host: host, User: "ada", Password: secret}), "failed_precondition", "certificate")
	if err := set(&apiv1.SetRegistryRequest{Host: host, Ca: &authority}); err != nil {
		t.Fatal(err)
	}
	if err := login(&apiv1.LoginRequest{Host: host, User: "ada", Password: "wrong horse"}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a wrong password: %v", err)
	}
	if asked != 2 {
		t.Errorf("the registry was asked %d times", asked)
	}
	if got := list(); strings.Contains(got, "ada") {
		t.Errorf("a wrong password is kept: %s", got)
	}
	if err := login(&apiv1.LoginRequest{Host: host, User: "ada", Password: secret}); err != nil {
		t.Fatal(err)
	}
	if got := list(); !strings.Contains(got, "ada") {
		t.Errorf("a login is not listed: %s", got)
	}
	if kept, err := settings.Read(); err != nil || kept[host].Password != secret {
		t.Errorf("kept is %#v, %v", kept, err)
	}
	yes, ca := true, "-----BEGIN CERTIFICATE-----"
	has(t, set(&apiv1.SetRegistryRequest{Host: host, Insecure: &yes}), "failed_precondition", "log out first")
	has(t, set(&apiv1.SetRegistryRequest{Host: host, Ca: &ca}), "failed_precondition", "log out first")
	if err := set(&apiv1.SetRegistryRequest{Host: host, AddMirrors: []*apiv1.Mirror{{Url: "https://m.example"}}}); err != nil {
		t.Error(err)
	}
	registry.Close()
	has(t, login(&apiv1.LoginRequest{Host: host, User: "ada", Password: secret}), "failed_precondition", "connection refused")
	if err := login(&apiv1.LoginRequest{Host: host, User: "eve", Password: secret, Unchecked: true}); err != nil {
		t.Error(err)
	}
	for range 2 {
		_, err := c.Logout(timeout(t), connect.NewRequest(&apiv1.LogoutRequest{Host: host}))
		if connect.CodeOf(err) != connect.CodeNotFound && err != nil {
			t.Error(err)
		}
	}
	if got := list(); strings.Contains(got, "eve") || !strings.Contains(got, "m.example") {
		t.Errorf("after the logout: %s", got)
	}
	for i, bad := range []*apiv1.LoginRequest{
		{}, {Host: "hub", User: "ada", Password: secret}, {Host: host, User: "ada"}, {Host: host, Password: secret},
		{Host: host, User: "a:b", Password: secret}, {Host: host, User: "ada", Password: strings.Repeat("x", maxPassword+1)},
	} {
		if err := login(bad); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%d: %v", i, err)
		}
	}
	_, err := c.Logout(timeout(t), connect.NewRequest(&apiv1.LogoutRequest{Host: host, All: true}))
	has(t, err, "invalid_argument")
	if _, err := c.Logout(timeout(t), connect.NewRequest(&apiv1.LogoutRequest{All: true})); err != nil {
		t.Error(err)
	}
	if got := list(); strings.Contains(got, "example") {
		t.Errorf("all forgotten: %s", got)
	}
	// The settings have an end, and stay as they were when it is reached.
	var full error
	for i := 0; full == nil && i < 100; i++ {
		full = login(&apiv1.LoginRequest{Host: fmt.Sprintf("r%d.example", i), User: "ada", Password: strings.Repeat("x", maxPassword), Unchecked: true})
	}
	has(t, full, "invalid_argument", "longer than")
	if kept, err := settings.Read(); err != nil || len(kept) < 10 {
		t.Errorf("%d kept, %v", len(kept), err)
	}
}

func newRegistries(t testing.TB) *registry.Store {
	dir := t.TempDir()
	return registry.Open(filepath.Join(dir, "registries.age"), filepath.Join(dir, "key"))
}

// TestLoginReachesNothing: an operator can have the node ask a registry, and not what listens
// on the node alone, and hears nothing of what else would answer him.
func TestLoginReachesNothing(t *testing.T) {
	settings := newRegistries(t)
	address, f, _ := ready(t, func(c *Config) { c.Registries = settings })
	asked := 0
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		http.Error(w, "the words of an inner service", http.StatusTeapot)
	}))
	defer inner.Close()
	host := strings.TrimPrefix(inner.URL, "http://")
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	c := api.Dial(address, "n1", f.Genesis, operator(t, f, fleet.RoleOperator, now))
	defer c.Close()
	for _, name := range []string{host, "localhost:" + port, "[::1]:" + port, "0.0.0.0:" + port, "[::]:" + port, "[::ffff:127.0.0.1]:" + port} {
		_, err := c.Login(timeout(t), connect.NewRequest(&apiv1.LoginRequest{Host: name, User: "ada", Password: secret}))
		if err == nil || asked > 0 || strings.Contains(err.Error(), "inner service") {
			t.Errorf("%s: %v, asked %d times", name, err, asked)
		}
	}
	yes := true
	for _, r := range []*apiv1.SetRegistryRequest{
		{Host: host, Insecure: &yes}, {Host: "localhost:" + port, Insecure: &yes}, {Host: "r.example", AddMirrors: []*apiv1.Mirror{{Url: inner.URL}}},
		{Host: "r.example", AddMirrors: []*apiv1.Mirror{{Url: inner.URL, Insecure: true}}},
	} {
		_, err := c.SetRegistry(timeout(t), connect.NewRequest(r))
		has(t, err, "permission_denied", "plain HTTP to the node itself needs admin")
	}
	admin := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer admin.Close()
	if _, err := admin.SetRegistry(timeout(t), connect.NewRequest(&apiv1.SetRegistryRequest{Host: host, Insecure: &yes})); err != nil {
		t.Error(err)
	}
	all, err := settings.Read()
	if err != nil {
		t.Fatal(err)
	}
	err = all[host].Check(timeout(t), host)
	has(t, err, "418")
	if asked == 0 || strings.Contains(err.Error(), "inner service") {
		t.Errorf("asked %d times: %v", asked, err)
	}
}
