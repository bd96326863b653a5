package fleet

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"kogge.example/update/golden"
)

// TestVerifyPeer shows who is let in, with a clock that is right and with one that
// nobody has set.
func TestVerifyPeer(t *testing.T) {
	f, twin := found(t, "dev"), found(t, "dev")
	g, id := f.Genesis, f.Genesis.ID()
	admin := f.admin
	revokedOne := f.operator(t, "eve", RoleAdmin, today)
	revoked := func(key string) bool { return key == KeyID(revokedOne.RawSubjectPublicKeyInfo) }
	asOperator := func(c *x509.Certificate) { c.ExtKeyUsage = usages(KindOperator) }
	asCA := func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }
	short := func(c *x509.Certificate) { c.NotAfter = today.AddDate(0, -1, 0); c.NotBefore = today.AddDate(0, -2, 0) }

	member, memberKey := forge(t, g.NodeCA, f.nodeCA, asCA)
	oldMember, oldMemberKey := forge(t, g.NodeCA, f.nodeCA, func(c *x509.Certificate) { asCA(c); short(c) })
	deputy, deputyKey := forge(t, g.OperatorCA, f.operatorCA, func(c *x509.Certificate) { asOperator(c); asCA(c) })
	plain, plainKey := forge(t, g.NodeCA, f.nodeCA, nil, "kogge:"+id+"/node/plain")

	// From before the CAs, which no clock that is right would sign.
	ago := func(p Peer) *x509.Certificate { return f.sign(t, p, newPublic(t), today.AddDate(-2, 0, 0)) }

	type row struct {
		title string
		cert  *x509.Certificate
		chain []*x509.Certificate
	}
	forged := func(title string, ca *x509.Certificate, key *ecdsa.PrivateKey, edit func(*x509.Certificate), uris ...string) row {
		cert, _ := forge(t, ca, key, edit, uris...)
		return row{title, cert, nil}
	}
	below := func(r row, chain ...*x509.Certificate) row { r.chain = chain; return r }
	rows := []row{
		{"the first admin", admin, nil},
		{"an operator", f.operator(t, "bob.k", RoleOperator, today), nil},
		{"a reader", f.operator(t, "carol", RoleReader, today), nil},
		{"a node", f.node(t, "n1", today), nil},
		{"a node, two years ago", ago(Peer{Kind: KindNode, Name: "n1"}), nil},
		{"a node, next week", f.node(t, "n1", today.AddDate(0, 0, 7)), nil},
		{"an operator, two years ago", ago(Peer{Kind: KindOperator, Name: "bob", Role: RoleOperator}), nil},
		{"a revoked admin", revokedOne, nil},
		{"admin of another fleet of that name", twin.admin, nil},
		{"node of another fleet of that name", twin.node(t, "n1", today), nil},
		forged("admin by another fleet's CA", twin.Genesis.OperatorCA, twin.operatorCA, asOperator, "kogge:"+id+"/operator/mallory?role=admin"),
		forged("admin by himself", nil, nil, asOperator, "kogge:"+id+"/operator/mallory?role=admin"),
		forged("admin by the node CA", g.NodeCA, f.nodeCA, asOperator, "kogge:"+id+"/operator/mallory?role=admin"),
		forged("node by the operator CA", g.OperatorCA, f.operatorCA, nil, "kogge:"+id+"/node/mallory"),
		forged("node by the operator CA, as a client", g.OperatorCA, f.operatorCA, asOperator, "kogge:"+id+"/node/mallory"),
		forged("admin that can also serve", g.OperatorCA, f.operatorCA, nil, "kogge:"+id+"/operator/mallory?role=admin"),
		forged("node that only calls", g.NodeCA, f.nodeCA, asOperator, "kogge:"+id+"/node/n1"),
		forged("node that is a CA", g.NodeCA, f.nodeCA, func(c *x509.Certificate) { c.IsCA = true }, "kogge:"+id+"/node/n1"),
		forged("two names", g.NodeCA, f.nodeCA, nil, "kogge:"+id+"/node/n1", "kogge:"+id+"/node/n2"),
		forged("a name and a web address", g.NodeCA, f.nodeCA, nil, "https://example.com/", "kogge:"+id+"/node/n1"),
		forged("no name", g.NodeCA, f.nodeCA, nil),
		forged("node with a role", g.NodeCA, f.nodeCA, nil, "kogge:"+id+"/node/n1?role=admin"),
		forged("operator without a role", g.OperatorCA, f.operatorCA, asOperator, "kogge:"+id+"/operator/bob"),
		forged("operator with two roles", g.OperatorCA, f.operatorCA, asOperator, "kogge:"+id+"/operator/bob?role=reader&role=admin"),
		forged("a role nobody knows", g.OperatorCA, f.operatorCA, asOperator, "kogge:"+id+"/operator/bob?role=root"),
		forged("a name with a slash", g.NodeCA, f.nodeCA, nil, "kogge:"+id+"/node/n1/x"),
		forged("a kind nobody knows", g.NodeCA, f.nodeCA, nil, "kogge:"+id+"/voter/n1"),
		forged("a fleet id in capitals", g.NodeCA, f.nodeCA, nil, "kogge:"+strings.ToUpper(id)+"/node/n1"),
		{"the CA itself", g.NodeCA, nil},
		below(forged("node by a member's key", member, memberKey, nil, "kogge:"+id+"/node/n7"), member),
		below(forged("the same without its chain", member, memberKey, nil, "kogge:"+id+"/node/n7")),
		below(forged("node by a member whose time is over", oldMember, oldMemberKey, nil, "kogge:"+id+"/node/n7"), oldMember),
		below(forged("operator by a member's key", member, memberKey, asOperator, "kogge:"+id+"/operator/bob?role=admin"), member),
		below(forged("operator by a deputy", deputy, deputyKey, asOperator, "kogge:"+id+"/operator/bob?role=admin"), deputy),
		below(forged("node by a node", plain, plainKey, nil, "kogge:"+id+"/node/n9"), plain),
	}
	var table, reasons strings.Builder
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "CERTIFICATE\tCLOCK IS SURE\tCLOCK IS NOT SURE")
	hide := strings.NewReplacer(id, "ID", strings.ToUpper(id), "ID-IN-CAPITALS", Short(twin.Genesis.ID()), "TWIN")
	for _, r := range rows {
		var cells []string
		for _, sure := range []bool{true, false} {
			peer, err := g.VerifyPeer(r.cert, r.chain, today, sure, revoked)
			cell := "yes: " + peer.String()
			if err != nil {
				cell = "no: " + class(err)
				if (peer != Peer{}) != errors.Is(err, ErrExpired) {
					t.Errorf("%s: refused for %v, and told as %v", r.title, err, peer)
				}
			} else if peer.Key != KeyID(r.cert.RawSubjectPublicKeyInfo) || peer.Fleet != id {
				t.Errorf("%s: %+v", r.title, peer)
			}
			cells = append(cells, cell)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.title, cells[0], cells[1])
		if _, err := g.VerifyPeer(r.cert, r.chain, today, true, revoked); err != nil {
			why, _, _ := strings.Cut(hide.Replace(err.Error()), ": x509")
			fmt.Fprintf(&reasons, "\n%s\n    %s\n", r.title, why)
		}
	}
	w.Flush()
	golden.Compare(t, "peers.txt", table.String()+reasons.String())
}

// class is which of the package's errors err is.
func class(err error) string {
	for name, is := range map[string]error{"foreign": ErrForeign, "kind": ErrKind, "revoked": ErrRevoked, "expired": ErrExpired} {
		if errors.Is(err, is) {
			return name
		}
	}
	return err.Error()
}

// TestRoles compares each role with each.
func TestRoles(t *testing.T) {
	want := map[Role]string{
		RoleReader: "reader", RoleOperator: "reader operator", RoleAdmin: "reader operator admin",
		"root": "", "": "",
	}
	for r, includes := range want {
		var got []string
		for _, other := range append(Roles, "", "root") {
			if r.AtLeast(other) {
				got = append(got, string(other))
			}
		}
		if strings.Join(got, " ") != includes {
			t.Errorf("role %q includes %q, want %q", r, got, includes)
		}
		if _, err := ParseRole(string(r)); (err == nil) != (includes != "") {
			t.Errorf("role %q: %v", r, err)
		}
	}
}

// TestNames tries names for nodes and operators.
func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"n1": "node operator", "a": "node operator", "7": "node operator", "a-b": "node operator",
		"anna.k": "operator", "svc_1": "operator", "": "", "-a": "", "a-": "", ".a": "", "a.": "", "N1": "", "ä": "",
		"a b": "", "a/b": "", "..": "", "a\n": "", "a?b": "", "a%41": "",
		strings.Repeat("a", 63): "node operator", strings.Repeat("a", 64): "",
	} {
		var got []string
		if CheckName(name) == nil {
			got = append(got, "node")
		}
		if CheckOperatorName(name) == nil {
			got = append(got, "operator")
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q is a name for %q, want %q", name, got, want)
		}
	}
}

// TestCertificates wants the dates and the uses that the package promises.
func TestCertificates(t *testing.T) {
	f := found(t, "dev")
	node := f.node(t, "n1", today)
	if err := node.VerifyHostname("n1.local"); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		name  string
		cert  *x509.Certificate
		years int
	}{{"operator CA", f.Genesis.OperatorCA, 20}, {"node CA", f.Genesis.NodeCA, 20}, {"admin", f.admin, 1}, {"node", node, 1}} {
		if !c.cert.NotBefore.Equal(today.AddDate(0, 0, -1)) || !c.cert.NotAfter.Equal(today.AddDate(c.years, 0, 0)) {
			t.Errorf("%s: from %v to %v", c.name, c.cert.NotBefore, c.cert.NotAfter)
		}
		if c.cert.SerialNumber.BitLen() < 64 {
			t.Errorf("%s: serial %v", c.name, c.cert.SerialNumber)
		}
	}
	late := f.node(t, "n1", today.AddDate(19, 6, 0))
	if !late.NotAfter.Equal(f.Genesis.NodeCA.NotAfter) {
		t.Errorf("a certificate outlives its CA: until %v", late.NotAfter)
	}
}

// TestRequestKey tries what might come instead of a certificate request.
func TestRequestKey(t *testing.T) {
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := RequestKey(csr)
	if err != nil || !public.Equal(key.Public()) {
		t.Fatalf("%v, %v", public, err)
	}
	broken := append([]byte(nil), csr...)
	broken[len(broken)-1] ^= 1
	for name, der := range map[string][]byte{
		"nothing": nil, "a broken signature": broken, "more behind it": append(csr, 0), "too much": make([]byte, maxCSR+1),
	} {
		if _, _, err := RequestKey(der); err == nil {
			t.Errorf("%s is a request", name)
		}
	}
}

// FuzzPeerOf reads certificates that anybody may show.
func FuzzPeerOf(f *testing.F) {
	fleet := found(f, "dev")
	f.Add(fleet.admin.Raw)
	f.Add(fleet.node(f, "n1", today).Raw)
	f.Add(fleet.Genesis.NodeCA.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if p, err := PeerOf(cert); err == nil && (!IsHash(p.Fleet) || !IsHash(p.Key) || p.Name == "" || (p.Kind == KindOperator) != (p.Role != "")) {
			t.Errorf("%+v", p)
		}
		_, _ = fleet.Genesis.VerifyPeer(cert, []*x509.Certificate{cert}, today, true, nil)
	})
}

// FuzzVerifyPeer reads whole chains that anybody may show: whoever is believed has a
// certificate that the fleet signed, whatever stands beside it.
func FuzzVerifyPeer(f *testing.F) {
	fleet := found(f, "dev")
	known := [][]byte{fleet.admin.Raw, fleet.node(f, "n1", today).Raw}
	for _, leaf := range known {
		f.Add(leaf, []byte{}, []byte{}, true)
		f.Add(leaf, fleet.Genesis.NodeCA.Raw, fleet.Genesis.OperatorCA.Raw, true)
		f.Add(fleet.Genesis.OperatorCA.Raw, leaf, leaf, false)
	}
	f.Fuzz(func(t *testing.T, leaf, one, two []byte, clockSure bool) {
		cert, err := x509.ParseCertificate(leaf)
		if err != nil {
			return
		}
		var chain []*x509.Certificate
		for _, der := range [][]byte{one, two} {
			if c, err := x509.ParseCertificate(der); err == nil {
				chain = append(chain, c)
			}
		}
		peer, err := fleet.Genesis.VerifyPeer(cert, chain, today, clockSure, nil)
		signed := slices.ContainsFunc(known, func(der []byte) bool { return bytes.Contains(der, cert.RawTBSCertificate) })
		if !signed && err == nil || signed && len(chain) == 0 && err != nil {
			t.Errorf("%s: %v", peer, err)
		}
	})
}
