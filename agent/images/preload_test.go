package images

import "testing"

// TestBareTag: an archive that names its image by a tag alone names none.
func TestBareTag(t *testing.T) {
	if got := fullName("1.0"); got != "" {
		t.Errorf("a bare tag became the image %q", got)
	}
}
