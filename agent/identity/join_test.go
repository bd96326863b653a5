package identity

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/init/nodeconfig"
	"kogge.example/update/fleet"
	"kogge.example/update/golden"
)

func version1Join(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "v1", fleet.JoinName))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestJoin writes a join.yaml and reads it, also as other editors save it.
func TestJoin(t *testing.T) {
	f := newFleet(t, "dev")
	token := fleet.NewToken()
	text := string(fleet.MarshalJoinFile(&fleet.JoinFile{Genesis: f.Genesis, Token: token}))
	for name, text := range map[string]string{
		"as written": text, "Windows": "\ufeff" + strings.ReplaceAll(text, "\n", "\r\n"),
		"quoted": strings.Replace(text, token.Text(), `"`+token.Text()+`"`, 1), "capitals": strings.Replace(text, token.Text(), strings.ToUpper(token.Text()), 1),
		"more comments": "# mine\n" + text + "# the end\n",
	} {
		j, err := ParseJoinFile(fleet.JoinName, []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if j.Genesis.ID() != f.Genesis.ID() || j.Token.Text() != token.Text() || !bytes.Equal(j.Genesis.Bytes(), f.Genesis.Bytes()) {
			t.Errorf("%s: %+v", name, j)
		}
	}
	golden.Compare(t, "join.txt", string(fleet.MarshalJoinFile(mustJoin(t, version1Join(t)))))
}

func mustJoin(t *testing.T, text string) *fleet.JoinFile {
	t.Helper()
	j, err := ParseJoinFile(fleet.JoinName, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestJoinRefused shows what is said of each way a join.yaml can be wrong, and that no
// message shows the token.
func TestJoinRefused(t *testing.T) {
	good := version1Join(t)
	token := mustJoin(t, good).Token.Text()
	id := mustJoin(t, good).Genesis.ID()
	twin := newFleet(t, "dev")
	var b strings.Builder
	for _, c := range []struct{ title, text string }{
		{"empty", ""},
		{"comments only", "# nothing\n"},
		{"a node.yaml", "hostname: n1\nnetwork: []\n"},
		{"a list", "- fleet\n"},
		{"a word", "kogge\n"},
		{"a token alone", token + "\n"},
		{"no token", strings.Replace(good, "token: "+token+"\n", "", 1)},
		{"an empty token", strings.Replace(good, token, "", 1)},
		{"a token with a typo", strings.Replace(good, token, token[:20]+"z"+token[21:], 1)},
		{"a token cut short", strings.Replace(good, token, token[:40], 1)},
		{"a token without its beginning", strings.Replace(good, token, token[6:], 1)},
		{"a token with a colon behind it", strings.Replace(good, token, token+": x", 1)},
		{"a token under another key", strings.Replace(good, "token:", "tokens:", 1)},
		{"a token twice", strings.Replace(good, "token:", "token: "+token+"\ntoken:", 1)},
		{"a list of tokens", strings.Replace(good, token, "["+token+"]", 1)},
		{"a torn token", strings.Replace(good, "token: "+token, "token: \""+token, 1)},
		{"a token broken in two", strings.Replace(good, token, token[:30]+"\n  "+token[30:], 1)},
		{"another fleet", strings.Replace(good, "fleet: "+id, "fleet: "+twin.Genesis.ID(), 1)},
		{"a short fleet id", strings.Replace(good, "fleet: "+id, "fleet: "+id[:12], 1)},
		{"a number for a fleet", strings.Replace(good, "fleet: "+id, "fleet: 12", 1)},
		{"an edited genesis", strings.Replace(good, `"name": "dev"`, `"name": "prod"`, 1)},
		{"a reformatted genesis", strings.Replace(good, `"threshold": 2`, `"threshold":2`, 1)},
		{"half a file", good[:len(good)/2]},
		{"a tab", strings.Replace(good, "  {", "\t{", 1)},
		{"an alias", "fleet: &a x\ntoken: *a\ngenesis: x\n"},
		{"a NUL", good[:50] + "\x00" + good[51:]},
		{"Latin-1", "fleet: \xe4\n"},
		{"too large", strings.Repeat("#", 2*fleet.MaxGenesis+1)},
	} {
		_, err := ParseJoinFile(fleet.JoinName, []byte(c.text))
		var problems *nodeconfig.Problems
		if !errors.As(err, &problems) || len(problems.List) == 0 {
			t.Errorf("%s: %v", c.title, err)
			continue
		}
		if c.title == "another fleet" {
			err = errors.New(strings.ReplaceAll(err.Error(), twin.Genesis.ID(), "TWIN"))
		}
		for at := len("kogge-") + 4; at+8 < len(token); at++ {
			if strings.Contains(strings.ToLower(err.Error()), token[at:at+8]) {
				t.Errorf("%s: the token is shown: %v", c.title, err)
				break
			}
		}
		b.WriteString("== " + c.title + "\n" + err.Error() + "\n")
	}
	golden.Compare(t, "join-errors.txt", b.String())
}

// FuzzJoin reads what lies on a boot partition.
func FuzzJoin(f *testing.F) {
	good := version1Join(f)
	f.Add([]byte(good))
	f.Add([]byte("fleet: &a [*a]\ntoken: *a\ngenesis: |\n  x\n"))
	f.Add([]byte("fleet: x\nfleet: y\n---\nz"))
	f.Fuzz(func(t *testing.T, text []byte) {
		j, err := ParseJoinFile(fleet.JoinName, text)
		var problems *nodeconfig.Problems
		switch {
		case err == nil && (j.Genesis == nil || j.Token.IsZero()):
			t.Errorf("%q is accepted, and says nothing", text)
		case err == nil:
			if _, err := ParseJoinFile(fleet.JoinName, fleet.MarshalJoinFile(j)); err != nil {
				t.Error(err)
			}
		case !errors.As(err, &problems) || len(problems.List) == 0 || problems.Error() == "":
			t.Errorf("%T %v", err, err)
		}
	})
}
