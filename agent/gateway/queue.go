package gateway

// queue is what has changed in a topic, in frames that all who follow it are sent. Each of them
// has a number, and who follows has that of the next one he wants: so a slow one keeps nothing
// here but his number.
type queue struct {
	frames [][]byte
	first  uint64 // number of frames[0]
	bytes  int
}

// What a queue holds: what was before, nobody can have any more.
const (
	maxQueue      = 1024
	maxQueueBytes = 4 << 20
)

// add queues a frame.
func (q *queue) add(frame []byte) {
	q.frames = append(q.frames, frame)
	q.bytes += len(frame)
	for len(q.frames) > maxQueue || q.bytes > maxQueueBytes && len(q.frames) > 1 {
		q.bytes -= len(q.frames[0])
		q.frames[0] = nil
		q.frames = q.frames[1:]
		q.first++
	}
}

// end is the number of the next frame.
func (q *queue) end() uint64 { return q.first + uint64(len(q.frames)) }

// from are some frames from a number on, of so many bytes or one alone; ok is false where the
// first of them is not here any more.
func (q *queue) from(number uint64, most int) (some [][]byte, ok bool) {
	if number < q.first {
		return nil, false
	}
	size := 0
	for _, f := range q.frames[min(number-q.first, uint64(len(q.frames))):] {
		if size += len(f); size > most && len(some) > 0 {
			break
		}
		some = append(some, f)
	}
	return some, true
}

// forget has all who follow ask anew.
func (q *queue) forget() {
	q.first = q.end() + 1
	q.frames, q.bytes = nil, 0
}
