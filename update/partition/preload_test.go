package partition

import "testing"

// TestIsPreload: what a node imports, and an image takes, by its name.
func TestIsPreload(t *testing.T) {
	for name, want := range map[string]bool{
		"web.tar": true, "web.tar.gz": true, "web.tgz": true, "web.tar.zst": true, "web.oci": true, "web.oci.gz": true, "web.oci.zst": true,
		"web.oci.tar": true, "web 1.0.tar": true, "w\xff.tar": true, "..": false, "w..tar": true, "-.tar": true,
		"": false, "web": false, "tar": false, "webtar": false, "web.tar.": false, "web.TAR": false,
		".tar": false, ".tgz": false, ".web.tar": false, "..tar": false, // hidden, or half written
		"web.tar.old": false, "web.tar~": false, "web.tar.bak": false, "web.tar.xz": false, "web.gz": false, "web.tgz.gz": false,
		"web.zip": false, "README.md": false, "web.tar\n": false, "we\nb.tar": false, "\nweb.tar": false, "in/web.tar": false,
	} {
		if got := IsPreload(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}
