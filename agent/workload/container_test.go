package workload

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestFileIsNotShown: no way of printing a container shows what its secrets say.
func TestFileIsNotShown(t *testing.T) {
	c := Container{ID: "web", Files: []File{
		{Target: "/run/secrets/key", Mode: 0o400, Data: []byte("hunter2"), Secret: true},
		{Target: "/motd", Mode: 0o444, UID: 1, Data: []byte("hunter2")},
	}}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	raw := fmt.Sprint([]byte("hunter2"))
	const sum = "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7" // sha256sum
	for _, text := range []string{
		string(data), c.Files[0].String(), fmt.Sprintf("%v %+v %#v %s", c, c, c, c.Files),
		fmt.Sprintf("%v %+v %#v", &c, &c, &c), fmt.Sprintf("%v %+v %#v", &c.Files[0], &c.Files[0], &c.Files[0]),
	} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, raw) || strings.Contains(text, "aHVudGVyMg") {
			t.Errorf("shows the secret: %s", text)
		}
	}
	if n := strings.Count(string(data), sum); n != 1 {
		t.Errorf("%d digests of the two files, only that of the config is to be seen: %s", n, data)
	}
}

// TestHashOfFiles: a container is another one when what its files say changes, or
// anything else about them.
func TestHashOfFiles(t *testing.T) {
	container := func(f File) string { return Container{ID: "web", Files: []File{f}}.Hash() }
	first := File{Target: "/a", Mode: 0o444, Data: []byte("one"), Secret: true}
	if a, b := container(first), container(first); a != b {
		t.Error("one container, two hashes")
	}
	for name, change := range map[string]func(*File){
		"data of the same size": func(f *File) { f.Data = []byte("two") },
		"target":                func(f *File) { f.Target = "/b" },
		"mode":                  func(f *File) { f.Mode = 0o400 },
		"owner":                 func(f *File) { f.UID = 1 },
		"secret":                func(f *File) { f.Secret = false },
	} {
		other := first
		change(&other)
		if container(other) == container(first) {
			t.Errorf("%s changed, and the hash did not", name)
		}
	}
}
