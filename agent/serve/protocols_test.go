package serve

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/door"
)

// TestProtocols speaks something else on the API's port. Who has proved to be somebody takes
// no place of the API's callers, however many they are; who has not is a stranger like others.
func TestProtocols(t *testing.T) {
	const name, many = "kogge-test/1", 80 // more than strangers have places
	address, f, _ := ready(t, func(c *Config) {
		c.Protocols = map[string]func(*tls.Conn){name: func(conn *tls.Conn) {
			defer conn.NetConn().Close()
			word := make([]byte, 1)
			if _, err := io.ReadFull(conn, word); err != nil || word[0] != 'k' {
				return
			}
			door.LetGo(conn.NetConn())
			door.LetGo(conn.NetConn())
			_, _ = conn.Write(word)
			_, _ = io.Copy(conn, conn)
		}}
	})
	dial := func(protocol string) (*tls.Conn, error) {
		return tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	}
	echo := func(conn *tls.Conn, word string) {
		t.Helper()
		got := make([]byte, len(word))
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != word {
			t.Fatalf("%q, %v", got, err)
		}
	}
	var all []*tls.Conn
	for range many {
		conn, err := dial(name)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		echo(conn, "k")
		all = append(all, conn)
	}
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{f.Certificate()}}}}
	r, err := client.Post("https://"+address+"/kogge.v1.NodeService/Status", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK || r.ProtoMajor != 2 {
		t.Errorf("a call of the API: %s, %s", r.Status, r.Proto)
	}
	for _, conn := range all {
		echo(conn, "they are still there")
	}
	stranger, err := dial(name)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Read(make([]byte, 1)); err == nil {
		t.Error("a stranger is answered")
	}
	if _, err := dial("kogge-other/1"); err == nil {
		t.Error("a protocol that nobody speaks")
	}
}
