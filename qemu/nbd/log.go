package nbd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Op is what a client asked the disk to do.
type Op uint8

// The operations of a log.
const (
	OpWrite Op = 1
	OpTrim  Op = 2
	OpFlush Op = 3
)

// Entry is one operation. Offset and Length are in bytes, multiples of 512.
type Entry struct {
	Op     Op
	FUA    bool // durable at once
	Offset int64
	Length int64
	Data   []byte // OpWrite: Length bytes
}

// A log file, all numbers big-endian:
//
//	"kogge nbd log 1\n"
//	8 bytes   size of the disk in bytes
//	then per entry:
//	1 byte    operation
//	1 byte    1 if durable at once, else 0
//	4 bytes   length in bytes
//	8 bytes   offset in bytes
//	…         data, for a write
//	4 bytes   CRC-32C of the entry before it
const (
	logMagic   = "kogge nbd log 1\n"
	headerSize = 1 + 1 + 4 + 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	// ErrLogVersion means that a file is no log, or one of another version.
	ErrLogVersion = errors.New("not a log of version 1")
	// ErrLog means that a log is damaged.
	ErrLog = errors.New("log is damaged")
)

// Log writes entries to a file. It buffers: Flush it before the file is read.
type Log struct{ w *bufio.Writer }

// NewLog begins a log for a disk of size bytes.
func NewLog(w io.Writer, size int64) (*Log, error) {
	l := &Log{bufio.NewWriterSize(w, 1<<20)}
	l.w.WriteString(logMagic)
	if err := binary.Write(l.w, binary.BigEndian, size); err != nil {
		return nil, fmt.Errorf("begin log: %w", err)
	}
	return l, nil
}

// Append adds an entry.
func (l *Log) Append(e Entry) error {
	head := make([]byte, headerSize)
	head[0] = byte(e.Op)
	if e.FUA {
		head[1] = 1
	}
	binary.BigEndian.PutUint32(head[2:], uint32(e.Length))
	binary.BigEndian.PutUint64(head[6:], uint64(e.Offset))
	sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, e.Data)
	l.w.Write(head)
	l.w.Write(e.Data)
	if _, err := l.w.Write(binary.BigEndian.AppendUint32(nil, sum)); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	return nil
}

// Flush writes out what was buffered.
func (l *Log) Flush() error {
	if err := l.w.Flush(); err != nil {
		return fmt.Errorf("flush log: %w", err)
	}
	return nil
}

// LogReader reads a log.
type LogReader struct {
	r    *bufio.Reader
	size int64
	n    int
}

// ReadLog begins to read a log. A file of another kind is [ErrLogVersion].
func ReadLog(r io.Reader) (*LogReader, error) {
	l := &LogReader{r: bufio.NewReaderSize(r, 1<<16)}
	head := make([]byte, len(logMagic)+8)
	if _, err := io.ReadFull(l.r, head); err != nil {
		return nil, fmt.Errorf("read log: %w: %w", ErrLogVersion, err)
	}
	if string(head[:len(logMagic)]) != logMagic {
		return nil, fmt.Errorf("read log: %w", ErrLogVersion)
	}
	l.size = int64(binary.BigEndian.Uint64(head[len(logMagic):]))
	if l.size <= 0 || l.size%SectorSize != 0 {
		return nil, fmt.Errorf("read log: disk of %d bytes: %w", l.size, ErrLog)
	}
	return l, nil
}

// Size is the size of the log's disk in bytes.
func (l *LogReader) Size() int64 { return l.size }

// Next returns the next entry, or io.EOF after the last. An entry that is cut
// off, damaged or beyond the disk is [ErrLog].
func (l *LogReader) Next() (Entry, error) {
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(l.r, head); errors.Is(err, io.EOF) {
		return Entry{}, io.EOF
	} else if err != nil {
		return Entry{}, l.damaged(err)
	}
	e := Entry{
		Op: Op(head[0]), FUA: head[1] == 1,
		Length: int64(binary.BigEndian.Uint32(head[2:])),
		Offset: int64(binary.BigEndian.Uint64(head[6:])),
	}
	switch {
	case e.Op < OpWrite || e.Op > OpFlush || head[1] > 1:
		return Entry{}, l.damaged(fmt.Errorf("operation %d", head[0]))
	case e.Op == OpFlush && (e.Offset != 0 || e.Length != 0),
		e.Op == OpWrite && e.Length > MaxRequest,
		e.Offset%SectorSize != 0 || e.Length%SectorSize != 0,
		e.Offset < 0 || e.Offset > l.size-e.Length:
		return Entry{}, l.damaged(fmt.Errorf("%d bytes at %d", e.Length, e.Offset))
	}
	if e.Op == OpWrite {
		// Grows with what is there: a damaged length asks for no memory.
		var data bytes.Buffer
		if _, err := io.CopyN(&data, l.r, e.Length); err != nil {
			return Entry{}, l.damaged(err)
		}
		e.Data = data.Bytes()
	}
	var sum [4]byte
	if _, err := io.ReadFull(l.r, sum[:]); err != nil {
		return Entry{}, l.damaged(err)
	}
	if binary.BigEndian.Uint32(sum[:]) != crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, e.Data) {
		return Entry{}, l.damaged(errors.New("checksum differs"))
	}
	l.n++
	return e, nil
}

func (l *LogReader) damaged(err error) error {
	return fmt.Errorf("read log: entry %d: %w: %w", l.n, ErrLog, err)
}

// Replay returns what a disk on top of base holds after a power cut that comes
// just after the nth write or trim of log (n counts from 1; 0 is before the
// first) and before whatever follows it. seed means what it means to
// [Disk.AfterCut]. A log with fewer writes is replayed to its end.
func Replay(base io.ReaderAt, log *LogReader, n int, seed uint64) (*State, error) {
	d, err := NewDisk(base, log.Size())
	if err != nil {
		return nil, err
	}
	for d.Writes() < n {
		e, err := log.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := d.change(e); err != nil {
			return nil, fmt.Errorf("replay: %w", err)
		}
	}
	return d.AfterCut(seed), nil
}
