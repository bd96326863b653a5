package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTornLine starts on a file whose last line was cut off.
func TestTornLine(t *testing.T) {
	name := filepath.Join(t.TempDir(), "records")
	if err := os.WriteFile(name, []byte("1 one\n2 two\n3 thr"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := open(name)
	if err != nil {
		t.Fatal(err)
	}
	do := func(method, path, body string) (int, string) {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	if code, body := do(http.MethodPost, "/", "three\n"); code != 200 || body != "3\n" {
		t.Errorf("POST: %d %q", code, body)
	}
	if code, body := do(http.MethodGet, "/", ""); code != 200 || body != "1 one\n2 two\n3 three\n" {
		t.Errorf("GET: %d %q", code, body)
	}
	if code, _ := do(http.MethodPost, "/", strings.Repeat("x", 5000)); code != 500 {
		t.Errorf("a line of 5000 bytes: %d", code)
	}
	if code, _ := do(http.MethodDelete, "/", ""); code != 405 {
		t.Errorf("DELETE: %d", code)
	}
	if code, _ := do(http.MethodGet, "/other", ""); code != 404 {
		t.Errorf("another path: %d", code)
	}
	if data, err := os.ReadFile(name); string(data) != "1 one\n2 two\n3 three\n" || err != nil {
		t.Errorf("file: %q, %v", data, err)
	}
}
