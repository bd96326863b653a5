package supervise

import (
	"bytes"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// maxLine is the longest line of a log; longer ones are cut into several.
	maxLine = 4096
	// maxRead is the most that one call of [serviceLog.after] returns.
	maxRead = 64 << 10
	// stamp begins each line. UTC.
	stamp = "2006-01-02T15:04:05.000Z "
)

// serviceLog is the newest part of what one service wrote, in RAM. It outlives
// the service's processes. A writer is never held up and costs no memory: what
// nobody read in time is overwritten.
type serviceLog struct {
	out   int           // the services' end of the pipe
	r     *os.File      // ours; nil if there is no pipe
	ended chan struct{} // closed when nothing more will come

	mu   sync.Mutex // guards the fields below
	ring []byte     // grows up to size, then byte number n lies at n % size
	size int
	end  int64         // number of the next byte
	over bool          // nothing more will come
	news chan struct{} // closed at the next change; nil while nobody waits
}

// newServiceLog makes a log of size bytes. With an error it is a log all the
// same, whose service writes to PID 1's own standard error.
func newServiceLog(size int) (*serviceLog, error) {
	l := &serviceLog{size: size, out: 2, ended: make(chan struct{})}
	r, w, err := logPipe()
	if err == nil {
		l.r, l.out = r, w
	}
	return l, err
}

// collect reads the pipe until it is closed.
func (l *serviceLog) collect() {
	defer l.finish()
	if l.r == nil {
		return
	}
	defer l.r.Close()
	in := make([]byte, 32<<10)
	var part, out []byte
	for {
		n, err := l.r.Read(in)
		if n > 0 {
			now := time.Now().UTC().AppendFormat(nil, stamp) // one for all that came at once
			part = append(part, in[:n]...)
			out, part = stampLines(out[:0], part, now, err != nil)
			l.add(out)
		}
		if err != nil {
			out, _ = stampLines(out[:0], part, time.Now().UTC().AppendFormat(nil, stamp), true)
			l.add(out)
			return
		}
	}
}

// stampLines appends the whole lines of in to out, each after now, and returns
// what is left of in: the beginning of a line shorter than maxLine, nothing if last.
func stampLines(out, in, now []byte, last bool) (stamped, rest []byte) {
	whole := in
	for len(whole) > 0 {
		i := bytes.IndexByte(whole[:min(len(whole), maxLine)], '\n')
		size := i + 1
		switch {
		case i >= 0:
		case len(whole) >= maxLine:
			i, size = maxLine, maxLine
		case last:
			i, size = len(whole), len(whole)
		default:
			return out, append(in[:0], whole...)
		}
		out = append(append(append(out, now...), whole[:i]...), '\n')
		whole = whole[size:]
	}
	return out, in[:0]
}

// note adds a line of PID 1's own.
func (l *serviceLog) note(line string) {
	l.add(append(time.Now().UTC().AppendFormat(nil, stamp), line+"\n"...))
}

// add appends whole lines.
func (l *serviceLog) add(b []byte) {
	if len(b) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if skip := len(b) - l.size; skip > 0 {
		// More than there is room for: only its end stays.
		l.grow(l.size)
		l.end += int64(skip)
		b = b[skip:]
	}
	l.grow(int(min(l.end+int64(len(b)), int64(l.size))))
	at := int(l.end % int64(l.size))
	n := copy(l.ring[at:], b)
	copy(l.ring, b[n:])
	l.end += int64(len(b))
	l.wake()
}

// grow makes the ring at least n bytes long.
func (l *serviceLog) grow(n int) {
	if n > len(l.ring) {
		l.ring = append(l.ring, make([]byte, n-len(l.ring))...)
	}
}

// wake tells those who wait that something changed. l.mu is held.
func (l *serviceLog) wake() {
	if l.news != nil {
		close(l.news)
		l.news = nil
	}
}

// chunk is a piece of a log.
type chunk struct {
	lines []byte // whole lines
	next  int64  // where to go on
	lost  int64  // bytes before lines that were overwritten already
	over  bool   // nothing comes after next, ever
	news  <-chan struct{}
}

// after returns whole lines from byte number from on, at most maxRead bytes. With
// none there, news is closed as soon as there are some, or there never will be.
func (l *serviceLog) after(from int64) chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := chunk{next: max(from, l.start())}
	c.lost = c.next - from
	b := l.copy(c.next, min(c.next+maxRead, l.end))
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	if c.lost > 0 { // it begins within a line
		i := bytes.IndexByte(b, '\n') + 1
		c.lost += int64(i)
		c.next += int64(i)
		b = b[i:]
	}
	c.lines = b
	c.next += int64(len(b))
	c.over = l.over && c.next >= l.end
	if len(b) == 0 && !c.over {
		if l.news == nil {
			l.news = make(chan struct{})
		}
		c.news = l.news
	}
	return c
}

// tail is the number of the byte at which the last n lines begin; 0 lines: of the
// oldest that is kept.
func (l *serviceLog) tail(n int) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	start := l.start()
	if n <= 0 {
		return start
	}
	b := l.copy(start, l.end)
	i := len(b)
	for ; n > 0 && i > 0; n-- {
		i = bytes.LastIndexByte(b[:i-1], '\n') + 1
	}
	if i == 0 && n > 0 {
		return start
	}
	return start + int64(i)
}

// start is the number of the oldest byte. l.mu is held.
func (l *serviceLog) start() int64 { return max(0, l.end-int64(l.size)) }

// copy returns the bytes from number a up to b. l.mu is held.
func (l *serviceLog) copy(a, b int64) []byte {
	out := make([]byte, max(0, b-a))
	if len(out) == 0 {
		return out
	}
	at := int(a % int64(l.size))
	n := copy(out, l.ring[at:])
	copy(out[n:], l.ring)
	return out
}

// close ends the log once what is in the pipe has been read. Somebody who
// survived his service and still holds the other end is not waited for.
func (l *serviceLog) close() {
	if l.r == nil {
		return
	}
	syscall.Close(l.out)
	_ = l.r.SetReadDeadline(time.Now().Add(time.Second))
}

func (l *serviceLog) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	close(l.ended)
	l.wake()
}

const (
	// spoolPause lets lines gather, so that a log file costs few small writes.
	spoolPause = time.Second
	// spoolRate in bytes per second is what a log file may take in the long run:
	// 0.7 GB a day for a service that never stops talking.
	spoolRate = 8 << 10
	// spoolBurst may come on top at once: a crash with all its goroutines.
	spoolBurst = 512 << 10
)

// keep copies the log to w until it is over, at a pace that spares the disk.
func (l *serviceLog) keep(w io.WriteCloser) {
	defer w.Close()
	var from int64
	tokens, filled := int64(spoolBurst), time.Now()
	var left int64 // bytes left out so far
	for {
		c := l.after(from)
		from = c.next
		now := time.Now()
		tokens = min(spoolBurst, tokens+int64(now.Sub(filled).Seconds()*spoolRate))
		filled = now
		left += c.lost
		// The last words are kept in any case: they may tell why.
		if size := int64(len(c.lines)); size > tokens && !c.over {
			left += size
		} else if size > 0 {
			tokens -= size
			if left > 0 {
				c.lines = append(leftOut(left, now), c.lines...)
				left = 0
			}
			_, _ = w.Write(c.lines) // the file says so itself, once
		}
		switch {
		case c.over:
			return
		case c.news == nil: // there is more already
			continue
		}
		<-c.news
		select {
		case <-time.After(spoolPause):
		case <-l.ended:
		}
	}
}
