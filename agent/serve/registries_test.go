package serve

import (
	"fmt"
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
)

const secret = "correct horse battery"

// TestRegistries: a password goes in, is used, and comes out nowhere.
func TestRegistries(t *testing.T) {
	settings := newRegistries(t)
	address, f, _ := ready(t, func(c *Config) { c.Registries = settings })
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	asked := 0
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if user, password, _ := r.BasicAuth(); r.URL.Path != "/v2/" || user != "ada" || password != secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer registry.Close()
	host := strings.TrimPrefix(registry.URL, "http://")
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
