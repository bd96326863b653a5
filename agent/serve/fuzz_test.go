package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/door"
	"kogge.example/agent/machine"
	"kogge.example/update/fleet"
)

// FuzzCall calls every method with any bytes, in each of the dialects: the node answers,
// and never by a mistake of its own.
func FuzzCall(f *testing.F) {
	ring := newFleet(f, "hanse")
	node := newNode(f, ring)
	adoptNode(f, ring, node, "n1")
	dir := f.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	defer listener.Close()
	handler := newServer(listener, Config{
		Node: node, ClockSure: func() bool { return true }, Machine: machine.Machine{Run: dir, State: dir, Kmsg: dir + "/kmsg", Control: dir + "/init.sock"},
		LogDir: dir, Containers: func() Containers { return &keeper{} },
		Projects: func() Projects { return nil }, Images: func() Images { return &store{} },
		Volumes:    func() Volumes { return &store{} },
		Registries: newRegistries(f),
		Commands:   func() Commands { return nil },
	}).http.Handler
	operator := operator(f, ring, fleet.RoleAdmin, now)
	leaf, err := x509.ParseCertificate(operator.Certificate[0])
	if err != nil {
		f.Fatal(err)
	}
	paths := slices.Sorted(maps.Keys(door.Methods()))
	kinds := []string{
		"application/json", "application/proto", "application/connect+json", "application/connect+proto",
		"application/grpc", "application/grpc+json", "application/grpc-web+proto", "text/plain",
	}
	for path := range paths {
		f.Add(path, 0, "", []byte(`{}`))
		f.Add(path, 1, "", []byte("\x0a\x02db\x10\x01"))
		f.Add(path, 2, "", []byte("\x00\x00\x00\x00\x12"+`{"container":"db"}`))
		f.Add(path, 3, "gzip", []byte("\x01\x00\x00\x00\x04\x0a\x02db"))
		f.Add(path, 4, "", []byte("\x00\xff\xff\xff\xff"))
	}
	f.Fuzz(func(t *testing.T, path, kind int, encoding string, body []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // a log may be followed
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "https://n1"+paths[uint(path)%uint(len(paths))], bytes.NewReader(body))
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
		r.ProtoMajor, r.ProtoMinor = 2, 0
		r.Header.Set("Content-Type", kinds[uint(kind)%uint(len(kinds))])
		r.Header.Set("Content-Encoding", encoding)
		r.Header.Set("Connect-Content-Encoding", encoding)
		r.Header.Set("Grpc-Encoding", encoding)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if strings.Contains(w.Body.String()+w.Result().Trailer.Get("Grpc-Message"), "internal error of the node") {
			t.Errorf("%s panics", r.URL.Path)
		}
	})
}
