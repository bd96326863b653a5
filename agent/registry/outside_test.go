package registry

import "testing"

// TestOutside: no name leads to what listens on this node alone, but its own.
func TestOutside(t *testing.T) {
	for _, c := range []struct {
		host, address string
		ok            bool
	}{
		{"r.example", "192.0.2.1:443", true}, {"r.example", "[2001:db8::1]:443", true},
		{"r.example", "127.0.0.1:5000", false}, {"r.example:5000", "127.8.9.1:5000", false}, {"r.example", "[::1]:443", false},
		{"r.example", "[::ffff:127.0.0.1]:443", false}, {"r.example", "0.0.0.0:443", false}, {"r.example", "[::]:443", false}, {"r.example", "", false},
		{"localhost:5000", "127.0.0.1:5000", true}, {"127.0.0.1:5000", "127.0.0.1:5000", true}, {"[::1]", "[::1]:443", true},
	} {
		if err := outside(c.host)("tcp", c.address, nil); (err == nil) != c.ok {
			t.Errorf("%s at %s: %v", c.host, c.address, err)
		}
	}
}
