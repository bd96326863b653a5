package document

import (
	"strings"
	"testing"
)

// TestDeep has a stranger's document of many levels be refused in few words.
func TestDeep(t *testing.T) {
	for what, raw := range map[string]string{
		"lists":          strings.Repeat("[", 200_000),
		"objects":        strings.Repeat(`{"a":`, 9_000),
		"both":           strings.Repeat(`[{"a":[0,`, 3_000),
		"a long name":    `{"version":1,"` + strings.Repeat("x", 100_000) + `":`,
		"whole, no type": `{"version":1,"name":` + strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000) + "}",
	} {
		var into struct {
			Version int    `json:"version"`
			Name    string `json:"name"`
		}
		err := Decode([]byte(raw), 1, &into)
		if err == nil || len(err.Error()) > 600 {
			t.Errorf("%s: %.700v", what, err)
		}
		if said := Differs([]byte(raw), []byte(raw[:len(raw)-1]+"x")); len(said) > 600 {
			t.Errorf("%s: %.700s", what, said)
		}
	}
}
