package control

import (
	"bufio"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAssessFits: a reason of any length and content is one that PID 1 takes, cut where
// it has to be.
func TestAssessFits(t *testing.T) {
	for _, why := range []string{"short", strings.Repeat("ü", MaxWhy), "x" + strings.Repeat("ü", MaxWhy), strings.Repeat("<&>\x01", MaxWhy), strings.Repeat("\"\\", MaxWhy)} {
		path := filepath.Join(t.TempDir(), "sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan Request, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				t.Error(err)
				close(got)
				return
			}
			defer conn.Close()
			line, err := bufio.NewReaderSize(conn, MaxRequest).ReadSlice('\n')
			if err != nil {
				t.Error(err)
			}
			r, err := ParseRequest(line[:max(0, len(line)-1)])
			if err != nil {
				t.Error(err)
			}
			got <- r
			_, _ = conn.Write([]byte(`{"assessment":{"state":"pending","since":"2026-03-01T12:00:00Z"}}` + "\n"))
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		c, err := Dial(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := c.Assess(ctx, "pending", why); err != nil || a.State != "pending" {
			t.Errorf("%.20q: %+v, %v", why, a, err)
		}
		if r := <-got; r.Op != OpAssess || !strings.HasPrefix(why, r.Why) || len(r.Why) < min(len(why), MaxWhy-3) {
			t.Errorf("%.20q arrived as %d bytes", why, len(r.Why))
		}
		c.Close()
		l.Close()
		cancel()
	}
}
