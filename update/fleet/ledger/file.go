package ledger

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// A ledger in a file is text: a first line, the genesis, and three documents for each height.
// Before each document stands a line that says what it is, of which height, and its bytes:
//
//	kogge-ledger 1
//	genesis 0 2345
//	{ …
//	record 1 380
//	{ …
//	value 1 4321
//	{ …
//	certificate 1 250
//	{ …
const firstLine = "kogge-ledger 1\n"

// ErrFile is of bytes that are no ledger's file, or not a whole one.
var ErrFile = errors.New("not a file of a ledger")

// WriteFile begins a ledger's file. Then its entries follow, by [WriteEntry], from height 1.
func WriteFile(w io.Writer, g *fleet.Genesis) error {
	if _, err := io.WriteString(w, firstLine); err != nil {
		return err
	}
	return writeDocument(w, "genesis", 0, g.Bytes())
}

// WriteEntry writes the entry of a height.
func WriteEntry(w io.Writer, height int64, e Entry) error {
	for _, d := range documents(&e) {
		if err := writeDocument(w, d.name, height, *d.raw); err != nil {
			return err
		}
	}
	return nil
}

// paper is one document of an entry.
type paper struct {
	name string
	raw  *[]byte
	most int // bytes
}

func documents(e *Entry) []paper {
	return []paper{{"record", &e.Record, maxRecord}, {"value", &e.Value, maxValue}, {"certificate", &e.Certificate, maxCertificate}}
}

func writeDocument(w io.Writer, name string, height int64, raw []byte) error {
	_, err := fmt.Fprintf(w, "%s %d %d\n%s", name, height, len(raw), raw)
	return err
}

// File reads the file of a ledger, one entry after the other.
type File struct {
	Genesis *fleet.Genesis
	r       *bufio.Reader
	height  int64 // of the last entry
	lines   int   // that were read
	begins  []int // lines at which the documents of the last entry begin
}

// here begins an error about the line that was read last.
func (f *File) here() string { return fmt.Sprintf("line %d", f.lines) }

// OpenFile reads the beginning of a ledger's file. Whether the genesis is that of the fleet
// which is meant is the caller's to see. The error wraps [ErrFile].
func OpenFile(r io.Reader) (*File, error) { return openFile(r, nil) }

// openFile is OpenFile for who has a genesis: bytes that are the same are not judged again.
func openFile(r io.Reader, known *fleet.Genesis) (*File, error) {
	f := &File{r: bufio.NewReader(r)}
	line, err := f.line()
	if err != nil || line != firstLine {
		return nil, fmt.Errorf("%w: line 1: it is not %q", ErrFile, firstLine[:len(firstLine)-1])
	}
	raw, err := f.document("genesis", 0, fleet.MaxGenesis)
	if err != nil {
		return nil, err
	}
	if known != nil && bytes.Equal(raw, known.Bytes()) {
		f.Genesis = known
	} else if f.Genesis, err = fleet.ParseGenesis(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	return f, nil
}

// Next is the entry of the next height; [io.EOF] after the last one. Another error wraps
// [ErrFile]. It verifies nothing.
func (f *File) Next() (Entry, error) {
	if _, err := f.r.Peek(1); errors.Is(err, io.EOF) {
		return Entry{}, io.EOF
	}
	f.height++
	f.begins = nil
	var e Entry
	for _, d := range documents(&e) {
		raw, err := f.document(d.name, f.height, d.most)
		if err != nil {
			return Entry{}, fmt.Errorf("record %d: %w", f.height, err)
		}
		*d.raw = raw
		f.begins = append(f.begins, f.lines-bytes.Count(raw, []byte{'\n'})+1)
	}
	return e, nil
}

// line reads a line of at most a buffer's length, with its end.
func (f *File) line() (string, error) {
	line, err := f.r.ReadSlice('\n')
	f.lines++
	return string(line), err
}

// document reads the document that has to come now. Memory is taken as bytes arrive.
func (f *File) document(name string, height int64, most int) ([]byte, error) {
	line, err := f.line()
	var size int
	if err == nil {
		_, err = fmt.Sscanf(line, name+" "+fmt.Sprint(height)+" %d\n", &size)
	}
	if err != nil || line != fmt.Sprintf("%s %d %d\n", name, height, size) {
		return nil, fmt.Errorf("%w: %s: %q and its bytes are wanted, and there is %.40q", ErrFile, f.here(), fmt.Sprintf("%s %d", name, height), line)
	}
	if size < 0 || size > most {
		return nil, fmt.Errorf("%w: %s: a %s of %d bytes: %d at most", ErrFile, f.here(), name, size, most)
	}
	raw, err := io.ReadAll(io.LimitReader(f.r, int64(size)))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %s: %w", ErrFile, f.here(), name, err)
	}
	if len(raw) < size {
		return nil, fmt.Errorf("%w: %s: it says that the %s has %d bytes, and the file ends after %d", ErrFile, f.here(), name, size, len(raw))
	}
	if !bytes.HasSuffix(raw, []byte("\n}\n")) {
		return nil, fmt.Errorf("%w: %s: it says that the %s has %d bytes, and these do not end with the line %q", ErrFile, f.here(), name, size, "}")
	}
	f.lines += bytes.Count(raw, []byte{'\n'})
	return raw, nil
}

// FormatEntry is one entry as it stands in a file.
func FormatEntry(height int64, e Entry) []byte {
	var b bytes.Buffer
	_ = WriteEntry(&b, height, e) // a buffer takes all
	return b.Bytes()
}

// ParseEntry reads what FormatEntry wrote for a height. The error wraps [ErrFile].
func ParseEntry(raw []byte, height int64) (Entry, error) {
	f := &File{r: bufio.NewReader(bytes.NewReader(raw)), height: height - 1}
	e, err := f.Next()
	if errors.Is(err, io.EOF) {
		return Entry{}, fmt.Errorf("%w: it is empty", ErrFile)
	}
	if err != nil {
		return Entry{}, err
	}
	if _, err := f.r.Peek(1); !errors.Is(err, io.EOF) {
		return Entry{}, fmt.Errorf("%w: something stands behind the entry", ErrFile)
	}
	return e, nil
}

// Read reads a ledger's file and verifies it from a genesis on, which has to be the file's
// own. At an entry that is wrong it ends, with those before it. That owners may have signed in the place
// of votes is for the reader to see, by State.BrokenGlass.
func Read(r io.Reader, g *fleet.Genesis) (*Log, []Entry, error) {
	l := New(g)
	f, err := openFile(r, g)
	if err != nil {
		return l, nil, err
	}
	if f.Genesis.ID() != g.ID() {
		return l, nil, fmt.Errorf("%w of fleet %s: genesis: %s: it differs there from this fleet's, and is that of fleet %s",
			ErrFile, fleet.Short(g.ID()), document.Differs(f.Genesis.Bytes(), g.Bytes()), fleet.Short(f.Genesis.ID()))
	}
	var entries []Entry
	for {
		e, err := f.Next()
		if errors.Is(err, io.EOF) {
			return l, entries, nil
		}
		if err != nil {
			return l, entries, err
		}
		if err := l.AppendBroken(e); err != nil {
			return l, entries, fmt.Errorf("%w%s (in the file, record, value and certificate begin at lines %d, %d and %d)", err, changed(e), f.begins[0], f.begins[1], f.begins[2])
		}
		entries = append(entries, e)
	}
}

// changed says, of a value that is not the one its record names, what of it was changed, as far as it
// shows; "" of another. It reads what nobody has proved, for people who look for the place.
func changed(e Entry) string {
	r, err := ParseRecord(e.Record)
	if err != nil || document.HashOf(e.Value) == r.Value {
		return ""
	}
	v, err := parseValue(e.Value)
	switch {
	case err != nil:
		return fmt.Sprintf(": in the value: %v", err)
	case v.Founding != nil && v.Founding.Roster.Hash() != r.Roster:
		return ": in the value: field founding.roster is not the one that the record names"
	}
	return ""
}
