package logs

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestOutputGone follows the output of a container that is replaced, and then removed: with
// the last lines that ends, also where it had written nothing.
func TestOutputGone(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]bool{"it wrote": false, "it wrote nothing": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "x.log")
			b, got := collect()
			var gone atomic.Bool
			asked := make(chan struct{})
			over := make(chan error, 1)
			go func() {
				over <- (&Output{File: file, To: b, Gone: func() bool {
					asked <- struct{}{}
					return gone.Load()
				}}).Send(t.Context(), 0, true)
			}()
			want := func(line string) {
				t.Helper()
				for limit := time.After(30 * time.Second); ; {
					select {
					case <-asked:
					case l := <-got:
						if l != line {
							t.Errorf("%q, want %q", l, line)
						}
						return
					case err := <-over:
						t.Fatalf("ended before %q: %v", line, err)
					case <-limit:
						t.Fatalf("waited for %q", line)
					}
				}
			}
			left := ""
			if !silent {
				write(t, file, "first\n")
				want("first")
				if err := os.Remove(file); err != nil { // it is replaced
					t.Fatal(err)
				}
				<-asked
				write(t, file, "second\n")
				want("second")
				gone.Store(true)
				<-asked
				write(t, file, "third\nlast")
				want("third")
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
				left = "last"
			}
			gone.Store(true)
			for limit := time.After(30 * time.Second); ; {
				select {
				case <-asked:
				case err := <-over:
					if all := strings.Join(drain(got), " "); err != nil || all != left {
						t.Errorf("%q, %v, want %q", all, err, left)
					}
					return
				case <-limit:
					t.Fatal("it goes on for ever")
				}
			}
		})
	}
}
