package door

import (
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// piped is a listener to which others come by pipes.
type piped chan net.Conn

func (p piped) Accept() (net.Conn, error) {
	if conn, ok := <-p; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (p piped) Close() error   { return nil }
func (p piped) Addr() net.Addr { return &net.TCPAddr{} }

// TestIdleConnections: who does nothing has to leave though nobody waits; who has a call stays,
// however long it takes, and leaves after it.
func TestIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := make(piped)
		d := NewListener(in)
		ended := map[string]time.Duration{}
		begin := time.Now()
		come := func(name string, busy bool) net.Conn {
			theirs, ours := net.Pipe()
			taken := make(chan net.Conn)
			go func() {
				conn, err := d.Accept()
				if err != nil {
					t.Error(err)
				}
				if busy {
					d.ConnState(conn, http.StateActive)
				}
				taken <- conn
			}()
			in <- ours
			go func() {
				_, _ = io.Copy(io.Discard, theirs)
				ended[name] = time.Since(begin)
			}()
			return <-taken
		}
		come("idle", false)
		calls := come("calls", true)
		time.Sleep(time.Hour)
		synctest.Wait()
		if took, over := ended["idle"]; !over || took < idleLimit || took > idleLimit*5/4 || len(ended) != 1 {
			t.Errorf("ended: %v", ended)
		}
		d.ConnState(calls, http.StateIdle)
		time.Sleep(idleLimit * 5 / 4)
		synctest.Wait()
		if _, over := ended["calls"]; !over || d.Connections() != 0 {
			t.Errorf("ended: %v", ended)
		}
		come("later", false) // it is looked for again
		time.Sleep(idleLimit * 5 / 4)
		synctest.Wait()
		if _, over := ended["later"]; !over {
			t.Errorf("ended: %v", ended)
		}
		close(in)
		synctest.Wait()
	})
}
