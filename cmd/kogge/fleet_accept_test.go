package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/identity"
	"kogge.example/agent/workload"
	"kogge.example/cmd/kogge/admission"
	"kogge.example/update/fleet/document"
	keys "kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// TestAcceptCommand follows a node that came by a token through the commands: it is new, and seen,
// and not accepted by a wrong fingerprint; then it is, and the token is revoked.
func TestAcceptCommand(t *testing.T) {
	(&world{units: []workload.UnitStatus{{ID: "db", State: workload.Running}}}).open(t)
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		root := rootCommand()
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	says := func(want string, args ...string) {
		t.Helper()
		if out, err := run(args...); err != nil || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("kogge %s: %v\n%s\nwant %s", strings.Join(args, " "), err, out, want)
		}
	}
	refuses := func(want string, args ...string) {
		t.Helper()
		if out, err := run(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("kogge %s: %v\n%s\nwant %s", strings.Join(args, " "), err, out, want)
		}
	}
	says(`comes in by itself, and is new`, "fleet", "token", "create", "hanse", "--node", "n9", "--label", "region=eu", "-o", "n9.yaml")
	text, err := os.ReadFile("n9.yaml")
	must(t, err)
	j, err := identity.ParseJoinFile("n9.yaml", text)
	must(t, err)
	record, err := token.ParsePaper(j.Record)
	must(t, err)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	node, err := keys.KeyOf(private.Public().(ed25519.PublicKey))
	must(t, err)
	use, err := token.NewUse(j.Token, record, node, document.HashOf(nil), "n9", func(kind string, id document.Hash, sequence uint64, body []byte) (keys.Envelope, error) {
		return keys.Seal(kind, id, private, sequence, body)
	})
	must(t, err)
	refuses("no node of that name came by a token", "fleet", "accept", "n9", "--fleet", "hanse")
	ring, err := loadFleet("hanse")
	must(t, err)
	told, err := admission.GivePapers(t.Context(), ring, []string{"n1"}, [][]byte{use.Bytes()}, notice)
	must(t, err)
	must(t, told[0].Err)
	says(`(?m)^new +n9 +- .* silent `, "fleet", "nodes", "--fleet", "hanse")
	says(`(?m)^new +n9: kogge fleet accept NODE accepts it$`, "fleet", "status", "--fleet", "hanse")
	refuses("there is no terminal to ask", "fleet", "accept", "n9", "--fleet", "hanse")
	refuses("and not", "fleet", "accept", "n9", "--fleet", "hanse", "--key", "0123456789ab")
	says(`(?s)with region=eu.*`+node.ID().String()+`.*Node n9 is accepted: 1 of 1 node took it`, "fleet", "accept", "n9", "--fleet", "hanse", "--key", node.ID().Short())
	says(`Node n9 is accepted already`, "fleet", "accept", "n9", "--fleet", "hanse")
	says(`(?m)^accepted +n9 `, "fleet", "nodes", "--fleet", "hanse")
	says(`(?m)^[0-9a-f]{12} +`+use.Record.Key.ID().Short()+` +used +.* n9 +n9$`, "fleet", "token", "list", "hanse")
	says(`is revoked: 1 of 1 node took it`, "fleet", "token", "revoke", "hanse", use.Record.Key.ID().Short())
	says(` revoked +.* n9 +n9`, "fleet", "token", "list", "hanse")
	a, err := askPapers(t.Context(), ring)
	must(t, err)
	if accepted, ok := a.Set.Accepted(node); !ok || accepted.Attested.Labels["region"] != "eu" || time.Since(time.Unix(accepted.Number, 0)) > time.Hour {
		t.Errorf("%+v", accepted)
	}
}
