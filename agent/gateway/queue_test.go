package gateway

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// TestQueue keeps what is new within its bounds, and tells who was overtaken.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := &queue{}
		size := rapid.IntRange(1, 64<<10).Draw(t, "size")
		count := rapid.IntRange(0, 2*maxQueue).Draw(t, "count")
		for n := range count {
			q.add(fmt.Appendf(make([]byte, 0, size), "%0*d", size, n))
		}
		if q.end() != uint64(count) || len(q.frames) > maxQueue || q.bytes > maxQueueBytes+size {
			t.Fatalf("%d frames, %d bytes, end %d", len(q.frames), q.bytes, q.end())
		}
		next, got := q.first, 0
		for {
			some, ok := q.from(next, 100<<10)
			if !ok || len(some) == 0 {
				break
			}
			next, got = next+uint64(len(some)), got+len(some)
		}
		if next != q.end() || got != len(q.frames) {
			t.Fatalf("%d of %d frames, up to %d of %d", got, len(q.frames), next, q.end())
		}
		if q.first > 0 {
			if _, ok := q.from(q.first-1, 1); ok {
				t.Fatal("one who was overtaken is not told")
			}
		}
		end := q.end()
		if q.forget(); q.bytes != 0 {
			t.Fatal(q.bytes)
		}
		if _, ok := q.from(end, 1); ok {
			t.Fatal("one who was up to date is not told to ask anew")
		}
		if some, ok := q.from(q.end(), 1); !ok || len(some) != 0 {
			t.Fatal("one who asks anew is told so again")
		}
	})
}
