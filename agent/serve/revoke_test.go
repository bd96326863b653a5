package serve

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// TestRevoke turns away an operator who is connected already, and leaves the caller
// and the node what they have.
func TestRevoke(t *testing.T) {
	f := newFleet(t, "hanse")
	n := newNode(t, f)
	adoptNode(t, f, n, "n1")
	var logs string
	address := start(t, n, func(c *Config) { logs = c.LogDir })
	write(t, filepath.Join(logs, "db.log"), "one\n")
	admin := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer admin.Close()
	reader := operator(t, f, fleet.RoleReader, now)
	bob := api.Dial(address, "n1", f.Genesis, reader)
	defer bob.Close()
	ask := func(c *api.Client) error {
		_, err := c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{}))
		return err
	}
	revoke := func(c *api.Client, keys ...string) error {
		_, err := c.Revoke(timeout(t), connect.NewRequest(&apiv1.RevokeRequest{Keys: keys}))
		return err
	}
	if err := ask(bob); err != nil {
		t.Fatal(err)
	}
	has(t, revoke(bob, keyOf(t, reader)), "permission_denied", "this needs admin")
	for title, c := range map[string]struct {
		keys []string
		want string
	}{
		"no key":             {[]string{keyOf(t, reader), "eve"}, "64 hexadecimal digits"},
		"the caller's own":   {[]string{keyOf(t, reader), f.Operator().Key}, "it is your own"},
		"the node's own key": {[]string{keyOf(t, reader), n.Key()}, "this node's own"},
	} {
		err := revoke(admin, c.keys...)
		has(t, err, "invalid_argument", c.want)
		if n.Revoked(keyOf(t, reader)) {
			t.Fatalf("%s: the other key is revoked", title)
		}
	}
	follow := func(c *api.Client) *connect.ServerStreamForClient[apiv1.LogLines] {
		stream, err := c.Logs(timeout(t), connect.NewRequest(&apiv1.LogsRequest{Container: "db", Follow: true}))
		if err != nil || !stream.Receive() {
			t.Fatal(err, stream.Err())
		}
		t.Cleanup(func() { stream.Close() })
		return stream
	}
	his, mine := follow(bob), follow(admin)
	for range 2 {
		if err := revoke(admin, keyOf(t, reader)); err != nil {
			t.Fatal(err)
		}
	}
	if err := revoke(admin); err != nil {
		t.Errorf("nobody to revoke: %v", err)
	}
	if his.Receive() {
		t.Errorf("bob still reads %v", his.Msg())
	}
	write(t, filepath.Join(logs, "db.log"), "one\ntwo\n")
	if !mine.Receive() {
		t.Errorf("the admin reads no more: %v", mine.Err())
	}
	has(t, ask(bob), "unauthenticated", "certificate is revoked")
	if err := ask(admin); err != nil {
		t.Error(err)
	}
}

// TestTold: who was called revoked by a member alone stays turned away whatever else admins revoke, until
// one lets that key in; and who is revoked by a call that fails later is gone all the same.
func TestTold(t *testing.T) {
	f := newFleet(t, "hanse")
	reader, other := operator(t, f, fleet.RoleReader, now), operator(t, f, fleet.RoleReader, now)
	bob, eve := keyOf(t, reader), keyOf(t, other)
	dir := filepath.Join(t.TempDir(), "identity")
	for name, text := range map[string]string{"told.json": `{"version": 1, "keys": ["` + bob + `"]}`, filepath.Join("told.json.new", "full"): ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), text)
	}
	n, err := identity.OpenNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	token, err := f.NewToken(keyring.Terms{}, now)
	if err == nil {
		err = n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token})
	}
	if err != nil {
		t.Fatal(err)
	}
	adoptNode(t, f, n, "n1")
	var logs string
	address := start(t, n, func(c *Config) { logs = c.LogDir })
	write(t, filepath.Join(logs, "db.log"), "one\n")
	admin := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer admin.Close()
	revoke := func(r *apiv1.RevokeRequest) (*apiv1.RevokeResponse, error) {
		answer, err := admin.Revoke(timeout(t), connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return answer.Msg, nil
	}
	comesIn := func(who tls.Certificate) error {
		c := api.Dial(address, "n1", f.Genesis, who)
		defer c.Close()
		_, err := c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{}))
		return err
	}
	for what, r := range map[string]*apiv1.RevokeRequest{"nobody": {}, "all": {All: true}, "another one": {Keys: []string{fleet.KeyID([]byte("mallory"))}}} {
		answer, err := revoke(r)
		if err != nil || !slices.Equal(answer.Told, []string{bob}) || answer.Forgets {
			t.Errorf("%s is revoked: %v, %v", what, answer, err)
		}
		has(t, comesIn(reader), "certificate is revoked")
	}
	c := api.Dial(address, "n1", f.Genesis, other)
	defer c.Close()
	stream, err := c.Logs(timeout(t), connect.NewRequest(&apiv1.LogsRequest{Container: "db", Follow: true}))
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	defer stream.Close()
	if _, err := revoke(&apiv1.RevokeRequest{Keys: []string{eve}, LetIn: []string{bob}}); err == nil {
		t.Error("the disk takes what it has no room for")
	}
	if stream.Receive() {
		t.Errorf("who is revoked reads %v", stream.Msg())
	}
	if err := os.RemoveAll(filepath.Join(dir, "told.json.new")); err != nil {
		t.Fatal(err)
	}
	if answer, err := revoke(&apiv1.RevokeRequest{LetIn: []string{bob}}); err != nil || len(answer.Told) > 0 {
		t.Errorf("%v, %v", answer, err)
	}
	if err := comesIn(reader); err != nil {
		t.Errorf("who is let in: %v", err)
	}
}

// TestAdoptionBringsRevoked lets nobody in whom the fleet revoked before the node was
// there; what is not in order is refused as a whole.
func TestAdoptionBringsRevoked(t *testing.T) {
	f := newFleet(t, "hanse")
	n := newNode(t, f)
	address := start(t, n, nil)
	bob := operator(t, f, fleet.RoleAdmin, now)
	a := adoption(f, "n1")
	for _, keys := range [][]string{{keyOf(t, bob), "eve"}, {keyOf(t, bob), f.Operator().Key}, {keyOf(t, bob), n.Key()}} {
		a.Revoked = keys
		has(t, api.Adopt(timeout(t), address, a), "invalid_argument")
		if n.Adopted() || slices.ContainsFunc(keys, n.Revoked) {
			t.Fatalf("adopted %v, or it knows one of %v", n.Adopted(), keys)
		}
	}
	a.Revoked = []string{keyOf(t, bob)}
	if err := api.Adopt(timeout(t), address, a); err != nil {
		t.Fatal(err)
	}
	c := api.Dial(address, "n1", f.Genesis, bob)
	defer c.Close()
	_, err := c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{}))
	has(t, err, "certificate is revoked")
}

// keyOf is the key of a certificate, as in fleet.Peer.Key.
func keyOf(t *testing.T, c tls.Certificate) string {
	t.Helper()
	cert, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return fleet.KeyID(cert.RawSubjectPublicKeyInfo)
}
