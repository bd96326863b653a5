// Package document is the one spelling of what a fleet writes down: a file of JSON with a
// version, a PEM block, the bytes that are hashed or signed. In come values, or bytes that
// somebody else wrote; out go bytes, or an error in words without Go's types. What a
// document means is its reader's, and where it lies too.
package document

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Encode writes a file of ours: one value, indented, and a newline.
func Encode(value any) ([]byte, error) {
	raw, err := json.MarshalIndent(value, "", "  ")
	return append(raw, '\n'), err
}

// ErrNewer is of a document that a later release of kogge has written. It is not damaged, and
// what it says is not for this release to judge.
var ErrNewer = errors.New("a later release of kogge has written it")

// newer is an error that is also ErrNewer. It says no more.
type newer struct{ error }

func (n newer) Unwrap() []error { return []error{ErrNewer, n.error} }

// Decode reads one JSON value that starts with a version: an unknown field or
// anything behind it is an error, and another version is refused in words; a higher one's
// error wraps [ErrNewer]. An error names the line, and the field, where they are known.
func Decode(raw []byte, version int, into any) error { return decode(raw, into, version) }

func decode(raw []byte, value any, versions ...int) error {
	if err := broken(raw); err != nil {
		return err
	}
	if open := bytes.TrimSpace(raw)[0]; open != '{' {
		return errors.New("it is not a JSON object")
	}
	var head struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return misfit(raw, reflect.TypeOf(value), err)
	}
	if head.Version == nil {
		return errors.New("field version: there is none")
	}
	if !slices.Contains(versions, *head.Version) {
		err := fmt.Errorf("field version: its format is version %d, and this kogge reads version %s", *head.Version, strings.Trim(strings.ReplaceAll(fmt.Sprint(versions), " ", " and "), "[]"))
		if *head.Version > slices.Max(versions) {
			err = newer{err}
		}
		return err
	}
	if err := strictly(raw, value); err != nil {
		return misfit(raw, reflect.TypeOf(value), err)
	}
	return nil
}

// DecodeExact is [Decode] for what is hashed or signed: one value has one spelling, which is
// Encode's, and no other bytes are it. Of several versions T has all fields, and leaves out
// those that a version has not.
func DecodeExact[T any](raw []byte, versions ...int) (T, error) {
	var value T
	if err := decode(raw, &value, versions...); err != nil {
		return value, err
	}
	again, err := Encode(value)
	if err != nil {
		return value, err
	}
	if where := Differs(raw, again); where != "" {
		return value, fmt.Errorf("%s: kogge would write it in another form: it was edited or reformatted", where)
	}
	return value, nil
}

// Message is what is hashed or signed: what it is for, then each field behind its length, so
// that no two lists of fields make the same bytes.
func Message(tag string, fields ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(tag)))
	b = append(b, tag...)
	for _, f := range fields {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return b
}

// Fields takes apart what [Message] made of a tag and n-1 fields: n pieces, the tag first, and
// what lies behind them. ok is false where a length does not fit.
func Fields(b []byte, n int) (fields [][]byte, rest []byte, ok bool) {
	for range n {
		if len(b) < 4 {
			return nil, nil, false
		}
		size := binary.BigEndian.Uint32(b)
		if b = b[4:]; uint64(size) > uint64(len(b)) {
			return nil, nil, false
		}
		fields, b = append(fields, b[:size:size]), b[size:]
	}
	return fields, b, true
}
