package document

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Who reads that a document of a thousand lines is wrong wants to know where. encoding/json says
// it for some faults, for others it names a Go type, and what a field's own reader says of its
// text it hands on without the field. So a document that was refused is walked once more.

// Differs says where a document is not as another, of which every byte was wanted: line and field
// of the first byte that differs; "" of two that are the same.
func Differs(raw, wanted []byte) string {
	if bytes.Equal(raw, wanted) {
		return ""
	}
	at := 0
	for at < min(len(raw), len(wanted)) && raw[at] == wanted[at] {
		at++
	}
	at = min(at, max(len(raw)-1, 0))
	field, _ := walk(raw, at)
	return place(raw, at, field)
}

// place is a line, from 1, and a field, if one is known, as errors begin with them.
func place(raw []byte, at int, field string) string {
	line := 1 + bytes.Count(raw[:min(at, len(raw))], []byte{'\n'})
	if field == "" {
		return fmt.Sprintf("line %d", line)
	}
	return fmt.Sprintf("line %d: field %s", line, field)
}

// deepest is how many levels of a document are named. Ours have fewer; a stranger's may have as many as it
// has bytes.
const deepest = 8

// walk reads JSON up to a byte and says in which field it stands. Where the text breaks before,
// field is the one that is broken, or, if behind is true, the last one that is whole.
func walk(raw []byte, at int) (field string, behind bool) {
	type level struct {
		list, named bool // named: the key was read, and its value comes
		key         string
		index       int
	}
	var in []level
	path := func() (p string) {
		for i, l := range in {
			if i == deepest {
				return p + "…"
			}
			if l.list {
				p = elementOf(p, l.index)
			} else if l.key != "" {
				p = fieldOf(p, l.key)
			}
		}
		return p
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	for {
		token, err := d.Token()
		if err != nil {
			if len(in) == 0 {
				return "", false
			}
			last := in[len(in)-1]
			return path(), !last.list && !last.named && last.key != ""
		}
		closed := token == json.Delim('}') || token == json.Delim(']')
		if closed {
			in = in[:len(in)-1]
		} else if n := len(in) - 1; n >= 0 && in[n].list {
			in[n].index++
		} else if n >= 0 && !in[n].named {
			in[n].key, in[n].named = token.(string), true // JSON has no other keys
			if d.InputOffset() > int64(at) {
				return path(), false
			}
			continue
		}
		if d.InputOffset() > int64(at) {
			return path(), false
		}
		switch token {
		case json.Delim('{'):
			in = append(in, level{})
		case json.Delim('['):
			in = append(in, level{list: true, index: -1})
		default:
			if n := len(in) - 1; n >= 0 {
				in[n].named = false
			}
		}
	}
}

// fieldOf is the path of a member of an object. A name that none of ours is written like is quoted.
func fieldOf(path, key string) string {
	if strings.ContainsFunc(key, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) || key == "" || len(key) > 40 {
		key = fmt.Sprintf("%.40q", key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// elementOf is the path of an element of a list; before the first one it is the list's.
func elementOf(path string, i int) string {
	if i < 0 {
		return path
	}
	return fmt.Sprintf("%s[%d]", path, i)
}

// misfit says where JSON that is no value of a type is none, and what is wrong there: the
// innermost value that does not fit. Each level reads again what stands below it, and the types
// of our documents have few.
func misfit(raw []byte, t reflect.Type, why error) error {
	at, field, why := within(raw, t, why)
	return fmt.Errorf("%s: %w", place(raw, at, field), plainly(why))
}

func within(raw []byte, t reflect.Type, why error) (at int, field string, _ error) {
	inner := func(from int, path string, raw []byte, t reflect.Type) (int, string, error) {
		err := strictly(raw, reflect.New(t).Interface())
		if err == nil {
			return 0, "", nil
		}
		at, below, err := within(raw, t, err)
		switch {
		case below == "" || below[0] == '[':
			path += below
		default:
			path += "." + below
		}
		return from + at, path, err
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	text := reflect.TypeFor[interface{ UnmarshalText([]byte) error }]()
	if p := reflect.PointerTo(t); p.Implements(text) || p.Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return 0, "", why
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	switch open, err := d.Token(); {
	case err != nil:
	case open == json.Delim('{') && (t.Kind() == reflect.Struct || t.Kind() == reflect.Map):
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return 0, "", why
			}
			from, name := int(d.InputOffset())-1, key.(string)
			var value json.RawMessage
			if d.Decode(&value) != nil {
				return 0, "", why
			}
			of, ok := member(t, name)
			if !ok {
				return from, fieldOf("", name), errors.New("there is no such field")
			}
			if at, path, err := inner(int(d.InputOffset())-len(value), fieldOf("", name), value, of); err != nil {
				return at, path, err
			}
		}
	case open == json.Delim('[') && t.Kind() == reflect.Slice:
		for i := 0; d.More(); i++ {
			var value json.RawMessage
			if d.Decode(&value) != nil {
				return 0, "", why
			}
			if at, path, err := inner(int(d.InputOffset())-len(value), elementOf("", i), value, t.Elem()); err != nil {
				return at, path, err
			}
		}
	}
	return 0, "", why
}

// member is the type of what an object of type t has under a name, as encoding/json finds it;
// false: it has no such field.
func member(t reflect.Type, name string) (reflect.Type, bool) {
	if t.Kind() == reflect.Map {
		return t.Elem(), true
	}
	for _, f := range reflect.VisibleFields(t) {
		called, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if called == "" {
			called = f.Name
		}
		if f.IsExported() && called != "-" && strings.EqualFold(called, name) {
			return f.Type, true
		}
	}
	return nil, false
}

// strictly reads one JSON value, and no field that it has not.
func strictly(raw []byte, value any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(value) // whoever read it before has seen to what follows
}

// maxDepth is how many levels a document may have, one in the other. Ours have far fewer, and what
// reads them need not bear a level for each byte of a stranger's.
const maxDepth = 32

// tooDeep is where text has more levels than a document may; -1: nowhere. It is asked before text is
// known to be JSON: all that it knows of that is where a string ends.
func tooDeep(raw []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++ // whatever it is, it does not end the string
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			if depth++; depth > maxDepth {
				return i
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return -1
}

// broken says where text is no JSON, and why, or is nested too deep; nil: it is neither.
func broken(raw []byte) error {
	if at := tooDeep(raw); at >= 0 {
		return fmt.Errorf("%s: it is nested more than %d levels deep", place(raw, at, ""), maxDepth)
	}
	var syntax *json.SyntaxError
	if err := json.Unmarshal(raw, new(json.RawMessage)); !errors.As(err, &syntax) {
		return nil
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return errors.New("it is empty")
	}
	at := max(int(syntax.Offset)-1, 0)
	field, behind := walk(raw, at)
	if behind {
		return fmt.Errorf("%s: behind field %s: %w", place(raw, at, ""), field, syntax)
	}
	return fmt.Errorf("%s: %w", place(raw, at, field), syntax)
}

// plainly says without Go's types what is wrong with a value of JSON.
func plainly(err error) error {
	var kind *json.UnmarshalTypeError
	var letter base64.CorruptInputError
	switch {
	case errors.As(err, &kind):
		return fmt.Errorf("a JSON %s does not belong there", kind.Value)
	case errors.As(err, &letter):
		return fmt.Errorf("it is no base64 from character %d on", int64(letter)+1)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it ends too early")
	}
	return err
}
