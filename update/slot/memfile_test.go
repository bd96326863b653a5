package slot

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestMemfile(t *testing.T) {
	f, err := memfile("kernel", strings.NewReader("boots"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != "boots" {
		t.Errorf("%q, %v", got, err)
	}
	broken := errors.New("the line broke")
	if _, err := memfile("kernel", iotest.ErrReader(broken)); !errors.Is(err, broken) || !strings.Contains(err.Error(), "read the kernel") {
		t.Errorf("a source that breaks: %v", err)
	}
}
