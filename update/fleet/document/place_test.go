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

// TestTooDeep has a document have as many levels as it may, and one more: brackets in strings are none.
func TestTooDeep(t *testing.T) {
	nested := func(levels int) []byte {
		return []byte("{\"version\":1,\n\"deep\":" + strings.Repeat("[", levels-1) + `"[{\"[{\\"` + strings.Repeat("]", levels-1) + "}")
	}
	var into struct {
		Version int `json:"version"`
		Deep    any `json:"deep"`
	}
	if err := Decode(nested(maxDepth), 1, &into); err != nil {
		t.Error(err)
	}
	if err := Decode(nested(maxDepth+1), 1, &into); err == nil || err.Error() != "line 2: it is nested more than 32 levels deep" {
		t.Error(err)
	}
}

// TestWork has documents that are refused at their end be ever larger: what is made meanwhile grows as
// they do, and not as their square.
func TestWork(t *testing.T) {
	for what, of := range map[string]func(n int) string{
		"levels":           func(n int) string { return strings.Repeat("[", n) },
		"objects":          func(n int) string { return strings.Repeat(`{"a":`, n) },
		"a list":           func(n int) string { return `{"version":1,"list":[` + strings.Repeat("0,", n) },
		"a list of lists":  func(n int) string { return `{"version":1,"list":[` + strings.Repeat("[[[0]]],", n) },
		"no number":        func(n int) string { return `{"version":1,"list":[` + strings.Repeat("0,", n) + `"x"]}` },
		"a list elsewhere": func(n int) string { return `{"version":1,"none":[` + strings.Repeat("[[[0]]],", n) + `0]}` },
	} {
		made := func(n int) float64 {
			raw := []byte(of(n))
			return testing.AllocsPerRun(1, func() {
				var into struct {
					Version int   `json:"version"`
					List    []int `json:"list"`
				}
				if Decode(raw, 1, &into) == nil {
					t.Errorf("%s: %d are taken", what, n)
				}
			})
		}
		if few, many := made(1_000), made(8_000); many > 10*few {
			t.Errorf("%s: %.0f allocations for 1000, %.0f for 8000", what, few, many)
		}
	}
}
