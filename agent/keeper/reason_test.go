package keeper

import (
	"errors"
	"testing"
)

// TestReasonIsOneLine: why a container does not run is a cell of a table.
func TestReasonIsOneLine(t *testing.T) {
	var u unit
	u.explain(event{kind: StartFailed, err: errors.Join(errors.New("runc: no such signal\n"), errors.New("and more\r\n\nof it"))}, 0)
	if want := "runc: no such signal; and more; of it"; u.reason != want {
		t.Errorf("%q, want %q", u.reason, want)
	}
}
