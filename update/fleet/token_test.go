package fleet

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// knownToken is the token of 32 bytes 0, 1, 2 ….
func knownToken() Token {
	var secret [32]byte
	for i := range secret {
		secret[i] = byte(i)
	}
	return tokenOf(&secret)
}

const knownText = "kogge-aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyp5clio"

// TestTokenText keeps the token's text as it was first released.
func TestTokenText(t *testing.T) {
	token := knownToken()
	if got := token.Text(); got != knownText {
		t.Fatalf("text is %s", got)
	}
	for _, text := range []string{knownText, strings.ToUpper(knownText), " " + knownText + "\r\n"} {
		if got, err := ParseToken(text); err != nil || got.Text() != knownText {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	a, b := NewToken(), NewToken()
	if !(Token{}).IsZero() || (Token{}).Text() != "" || (Token{}).ID() != "" || a.Text() == b.Text() || a.ID() == b.ID() {
		t.Error("no token is one, or two tokens are")
	}
}

// TestTokenTypos changes each character of a token to each other one, and swaps
// neighbours: never is it another token.
func TestTokenTypos(t *testing.T) {
	tries, passed := 0, 0
	try := func(text string) {
		tries++
		_, err := ParseToken(text)
		if err == nil {
			passed++
		} else if !errors.Is(err, ErrToken) || strings.Contains(err.Error(), text[10:20]) {
			t.Errorf("the error is %v", err)
		}
	}
	for i := len(tokenPrefix); i < len(knownText); i++ {
		for _, c := range "abcdefghijklmnopqrstuvwxyz234567" {
			if byte(c) != knownText[i] {
				try(knownText[:i] + string(c) + knownText[i+1:])
			}
		}
		if i+1 < len(knownText) && knownText[i] != knownText[i+1] {
			try(knownText[:i] + knownText[i+1:i+2] + knownText[i:i+1] + knownText[i+2:])
		}
	}
	for _, text := range []string{"", "kogge-", knownText[6:], knownText + "a", knownText[:61], "kogge-" + strings.Repeat("ä", 28), strings.Replace(knownText, "a", "1", 1)} {
		if _, err := ParseToken(text); !errors.Is(err, ErrToken) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if passed > 0 {
		t.Errorf("%d of %d typos make another token", passed, tries)
	}
}

// TestTokenHidden prints a token in every way there is, alone and inside of others.
func TestTokenHidden(t *testing.T) {
	token := knownToken()
	j := JoinFile{Token: token}
	var printed strings.Builder
	for _, value := range []any{token, &token, j, &j, []Token{token}, map[string]Token{"a": token}, struct{ token Token }{token}, &struct{ held struct{ token Token } }{struct{ token Token }{token}}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%p"} {
			fmt.Fprintf(&printed, verb+"\n", value)
		}
		text, err := json.Marshal(value)
		fmt.Fprintf(&printed, "%s %v\n", text, err)
		slog.New(slog.NewTextHandler(&printed, nil)).Info("x", "token", value)
	}
	secret := token.secret()[5:15]
	for _, form := range []string{knownText[10:20], hex.EncodeToString(secret), strings.Trim(fmt.Sprint(secret), "[]"), fmt.Sprintf("%X", secret), fmt.Sprintf("%o", secret), "0x5, 0x6, 0x7", "5,6,7"} {
		if at := strings.Index(printed.String(), form); at >= 0 {
			t.Errorf("the token is printed: %s", printed.String()[max(0, at-60):at+20])
		}
	}
	if !strings.Contains(printed.String(), "(token)") {
		t.Error("nothing says that there is a token")
	}
}

// TestMac keeps the proof as it was first released, and wants that every input counts.
func TestMac(t *testing.T) {
	token, fleet, spki, nonce := knownToken(), strings.Repeat("ab", 32), []byte("public key"), make([]byte, NonceSize)
	mac := Mac(token, fleet, spki, nonce)
	if got := hex.EncodeToString(mac); got != knownMac {
		t.Errorf("mac is %s", got)
	}
	if !CheckMac(token, fleet, spki, nonce, mac) {
		t.Fatal("its own mac is wrong")
	}
	other := append([]byte{1}, nonce[1:]...)
	for name, ok := range map[string]bool{
		"another token":         CheckMac(NewToken(), fleet, spki, nonce, mac),
		"another fleet":         CheckMac(token, strings.Repeat("ac", 32), spki, nonce, mac),
		"another key":           CheckMac(token, fleet, []byte("public keY"), nonce, mac),
		"another nonce":         CheckMac(token, fleet, spki, other, mac),
		"a byte less":           CheckMac(token, fleet, spki, nonce, mac[:31]),
		"nothing":               CheckMac(token, fleet, spki, nonce, nil),
		"no token":              CheckMac(Token{}, fleet, spki, nonce, Mac(Token{}, fleet, spki, nonce)),
		"a short nonce":         CheckMac(token, fleet, spki, nil, Mac(token, fleet, spki, nil)),
		"a byte moved to a key": CheckMac(token, fleet, append([]byte("public key"), 0), nonce[1:], mac),
	} {
		if ok {
			t.Errorf("%s passes", name)
		}
	}
}

const knownMac = "c84e59d11729ca59cb8d33112cf88367a50157b33fa33ec6e59067ff9b329f18"

// FuzzToken reads what somebody typed.
func FuzzToken(f *testing.F) {
	f.Add(knownText)
	f.Add("kogge-")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err == nil && !strings.EqualFold(token.Text(), strings.TrimSpace(text)) {
			t.Errorf("%q is read as %q", text, token.Text())
		}
	})
}
