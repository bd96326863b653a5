package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	h := handler("n07", "1.1")
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/", http.StatusOK, "Hello from n07.\nrelease 1.1\nrequest 1\n"},
		{"GET", "/", http.StatusOK, "Hello from n07.\nrelease 1.1\nrequest 2\n"},
		{"GET", "/other", http.StatusNotFound, "404 page not found\n"},
		{"POST", "/", http.StatusMethodNotAllowed, "Method Not Allowed\n"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || w.Body.String() != c.body {
			t.Errorf("%s %s: %d %q", c.method, c.path, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	handler("n07", "").ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if want := "Hello from n07.\nrequest 1\n"; w.Body.String() != want {
		t.Errorf("without a release: %q", w.Body)
	}
}

// TestInside wants a line of everything, here as in a container.
func TestInside(t *testing.T) {
	var b strings.Builder
	inside(&b)
	for _, name := range []string{"host", "user", "processes", "addresses", "memory", "rights", "terminal"} {
		if !strings.Contains("\n"+b.String(), "\n"+name+" ") {
			t.Errorf("no %s in\n%s", name, b.String())
		}
	}
	if want := fmt.Sprintf("user        %d:%d\n", os.Getuid(), os.Getgid()); !strings.Contains(b.String(), want) {
		t.Errorf("want %q in\n%s", want, b.String())
	}
}
