package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Numbers of the protocol.
//
// Source: github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
const (
	magicInit   = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption = 0x49484156454f5054 // "IHAVEOPT"
	magicReply  = 0x3e889045565a9
	magicAsk    = 0x25609513
	magicAnswer = 0x67446698

	flagFixed    = 1 // handshake: fixed newstyle
	flagNoZeroes = 2 // handshake: no 124 zeros after EXPORT_NAME

	optExportName = 1
	optAbort      = 2
	optInfo       = 6
	optGo         = 7

	repAck     = 1
	repInfo    = 3
	repUnsup   = 1<<31 | 1
	repInvalid = 1<<31 | 3

	infoExport    = 0
	infoBlockSize = 3

	// has flags, takes flush, takes FUA, takes trim
	exportFlags = 1 | 1<<2 | 1<<3 | 1<<5

	cmdRead  = 0
	cmdWrite = 1
	cmdDisc  = 2
	cmdFlush = 3
	cmdTrim  = 4

	cmdFUA = 1 // command flag

	errIO      = 5
	errInvalid = 22
	errNoSpace = 28
)

const (
	// MaxRequest is the longest read or write, as the client is told.
	MaxRequest = 32 << 20
	// maxOption bounds what a client may say before it is served.
	maxOption = 64 << 10
)

// errProtocol means a client that does not speak the protocol; it is hung up on.
var errProtocol = errors.New("client breaks the NBD protocol")

// serve speaks with one client until it leaves, breaks the protocol or is cut off.
// nil means that it left in good order.
func (s *Server) serve(conn io.ReadWriter) error {
	c := &client{r: bufio.NewReaderSize(conn, 64<<10), w: bufio.NewWriterSize(conn, 64<<10), size: s.Disk.Size()}
	ok, err := c.negotiate()
	if err != nil || !ok {
		return err
	}
	for {
		var q request
		if err := binary.Read(c.r, binary.BigEndian, &q); err != nil {
			if errors.Is(err, io.EOF) {
				return nil // between requests: as good as a farewell
			}
			return err
		}
		if q.Magic != magicAsk {
			return fmt.Errorf("request magic %#x: %w", q.Magic, errProtocol)
		}
		if (q.Type == cmdRead || q.Type == cmdWrite) && q.Length > MaxRequest {
			return fmt.Errorf("request of %d bytes: %w", q.Length, errProtocol)
		}
		var data []byte
		if q.Type == cmdWrite {
			data = c.buffer(q.Length)
			if _, err := io.ReadFull(c.r, data); err != nil {
				return err
			}
		}
		if q.Type == cmdDisc {
			return nil
		}
		code, payload, alive := s.carryOut(c, q, data)
		if !alive {
			return nil
		}
		if err := c.answer(q.Cookie, code, payload); err != nil {
			return err
		}
	}
}

// request is a command as it comes over the line.
type request struct {
	Magic  uint32
	Flags  uint16
	Type   uint16
	Cookie uint64
	Offset uint64
	Length uint32
}

// carryOut does what q asks and returns the answer's code and data. It is not
// alive where the power was cut before or just after: then there is no answer.
func (s *Server) carryOut(c *client, q request, data []byte) (code uint32, payload []byte, alive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, nil, false
	}
	off, fua := int64(q.Offset), q.Flags&cmdFUA != 0
	var err error
	switch q.Type {
	case cmdRead:
		payload = c.buffer(q.Length)
		_, err = s.Disk.ReadAt(payload, off)
	case cmdWrite:
		err = s.Disk.Write(data, off, fua)
	case cmdTrim:
		err = s.Disk.Trim(off, int64(q.Length), fua)
	case cmdFlush:
		err = s.Disk.Flush()
	default:
		return errInvalid, nil, true
	}
	if err == nil && (q.Type == cmdWrite || q.Type == cmdTrim) && s.cutAt > 0 && s.Disk.Writes() >= s.cutAt {
		s.cut(s.cutSeed)
		return 0, nil, false
	}
	switch {
	case err == nil:
		return 0, payload, true
	case errors.Is(err, ErrRange):
		return errInvalid, nil, true
	case errors.Is(err, ErrFull):
		return errNoSpace, nil, true
	}
	return errIO, nil, true
}

// client is one connection.
type client struct {
	r    *bufio.Reader
	w    *bufio.Writer
	size int64
	buf  []byte // of the request being carried out
}

// buffer returns n bytes that are good until the next call.
func (c *client) buffer(n uint32) []byte {
	if int(n) > cap(c.buf) {
		c.buf = make([]byte, n)
	}
	return c.buf[:n]
}

// put writes big-endian numbers and bytes; errors show when c.w is flushed.
func (c *client) put(values ...any) {
	for _, v := range values {
		binary.Write(c.w, binary.BigEndian, v)
	}
}

// answer ends a command.
func (c *client) answer(cookie uint64, code uint32, payload []byte) error {
	c.put(uint32(magicAnswer), code, cookie, payload)
	return c.w.Flush()
}

// negotiate is the fixed newstyle handshake. ok means that commands follow.
func (c *client) negotiate() (ok bool, err error) {
	c.put(uint64(magicInit), uint64(magicOption), uint16(flagFixed|flagNoZeroes))
	if err := c.w.Flush(); err != nil {
		return false, err
	}
	var flags uint32
	if err := binary.Read(c.r, binary.BigEndian, &flags); err != nil {
		return false, err
	}
	if flags&^(flagFixed|flagNoZeroes) != 0 {
		return false, fmt.Errorf("client flags %#x: %w", flags, errProtocol)
	}
	for {
		var o struct {
			Magic       uint64
			Opt, Length uint32
		}
		if err := binary.Read(c.r, binary.BigEndian, &o); err != nil {
			return false, err
		}
		if o.Magic != magicOption || o.Length > maxOption {
			return false, fmt.Errorf("option %d, magic %#x, %d bytes: %w", o.Opt, o.Magic, o.Length, errProtocol)
		}
		data := make([]byte, o.Length)
		if _, err := io.ReadFull(c.r, data); err != nil {
			return false, err
		}
		switch o.Opt {
		case optExportName: // any name is our one disk
			c.put(uint64(c.size), uint16(exportFlags))
			if flags&flagNoZeroes == 0 {
				c.put(make([]byte, 124))
			}
			return true, c.w.Flush()
		case optAbort:
			c.reply(o.Opt, repAck, nil)
			return false, c.w.Flush()
		case optInfo, optGo:
			if !validInfo(data) {
				c.reply(o.Opt, repInvalid, nil)
				break
			}
			c.info(o.Opt)
			if o.Opt == optGo {
				return true, c.w.Flush()
			}
		default:
			c.reply(o.Opt, repUnsup, nil)
		}
		if err := c.w.Flush(); err != nil {
			return false, err
		}
	}
}

// validInfo says whether the data of INFO or GO are a name and a list of
// 16-bit requests. Which ones does not matter: all that we know is told.
func validInfo(data []byte) bool {
	if len(data) < 6 {
		return false
	}
	name := binary.BigEndian.Uint32(data)
	if uint64(name)+6 > uint64(len(data)) {
		return false
	}
	rest := data[4+name:]
	return int(binary.BigEndian.Uint16(rest))*2 == len(rest)-2
}

// info describes the disk: its size, what it takes, and its sectors.
func (c *client) info(opt uint32) {
	export := binary.BigEndian.AppendUint16(nil, infoExport)
	export = binary.BigEndian.AppendUint64(export, uint64(c.size))
	c.reply(opt, repInfo, binary.BigEndian.AppendUint16(export, exportFlags))
	block := binary.BigEndian.AppendUint16(nil, infoBlockSize)
	for _, n := range []uint32{SectorSize, 4096, MaxRequest} { // least, preferred, most
		block = binary.BigEndian.AppendUint32(block, n)
	}
	c.reply(opt, repInfo, block)
	c.reply(opt, repAck, nil)
}

func (c *client) reply(opt, kind uint32, data []byte) {
	c.put(uint64(magicReply), opt, kind, uint32(len(data)), data)
}
