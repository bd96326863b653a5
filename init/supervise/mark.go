package supervise

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A service may say its last word, such as MAINPID= of its successor, and exit at
// once. Its exit comes by another way than the word and may overtake it; so the
// loop, when it learns of an exit, sends itself a mark on the socket for notices and
// hears what lies before it. Datagrams to one socket keep their order.

// markLimit is how long the loop waits for its own mark: it is on its way within
// the machine, so this only bounds trouble that nobody has thought of.
const markLimit = time.Second

const markPrefix = "mark "

// settle hears every notice that was sent before now.
func (s *supervisor) settle() {
	if s.notify == nil {
		return
	}
	s.marks++
	end := time.NewTimer(markLimit)
	defer end.Stop()
	for sent := false; ; {
		if !sent {
			err := s.notify.mark(s.marks)
			if err != nil && !errors.Is(err, unix.EAGAIN) {
				return
			}
			sent = err == nil // a full queue has room once one more is heard
		}
		select {
		case m := <-s.notices:
			if m.mark == s.marks {
				return
			}
			s.noticed(m, time.Now())
		case <-end.C:
			return
		}
	}
}

// mark sends the mark with that number, or EAGAIN when the queue is full.
func (n *notifySocket) mark(number int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	text := markPrefix + strconv.Itoa(number)
	return unix.Sendto(fd, []byte(text), unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: n.path})
}

// parseMark reads a datagram that this process sent to itself; 0 if it is no mark.
func parseMark(b []byte) int {
	text, ok := strings.CutPrefix(string(b), markPrefix)
	if !ok {
		return 0
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return number
}
