package workload

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

// TestExtend: extents of ids, and where on the node they are.
func TestExtend(t *testing.T) {
	for _, c := range []struct {
		ids  []uint32
		want string
		maps string
	}{
		{nil, "", "[{0 131072 65536}]"},
		{[]uint32{0, 1000, 65535, math.MaxUint32}, "", "[{0 131072 65536}]"},
		{[]uint32{65536}, "65536:1", "[{0 131072 65536} {65536 2148532224 1}]"},
		{[]uint32{1516583083, 65537, 1516583083, 65536, 1516583084, 4294967294}, "65536:2,1516583083:2,4294967294:1",
			"[{0 131072 65536} {65536 2148532224 2} {1516583083 2148532226 2} {4294967294 2148532228 1}]"},
	} {
		got, err := Extend(c.ids)
		maps := fmt.Sprint(Owner{First: 2 * IDs, More: got}.Mappings())
		if err != nil || string(got) != c.want || maps != c.maps {
			t.Errorf("%v: %q %s, %v, want %q %s", c.ids, got, maps, err, c.want, c.maps)
		}
	}
	for _, c := range []struct {
		count, step int
		fits        bool
	}{
		{300, 1, true}, {300, 2, true}, {300, 1000, true}, {160, 20_000_000, true}, {300, 10_000_000, false}, {301, 1, false},
	} {
		var ids []uint32
		for i := range c.count {
			ids = append(ids, uint32(100_000+i*c.step))
		}
		got, err := Extend(ids)
		if (err == nil) != c.fits {
			t.Errorf("%d with a step of %d: %v", c.count, c.step, err)
		}
		for _, id := range ids {
			if err == nil && !(Owner{First: IDs, More: got}).Has(id) {
				t.Errorf("%d with a step of %d: %d is not in %s", c.count, c.step, id, got)
			}
		}
	}
	o := Owner{First: IDs, More: "70000:2"}
	for id, want := range map[uint32]bool{0: true, 65535: true, 65536: false, 70000: true, 70001: true, 70002: false, math.MaxUint32: false} {
		if o.Has(id) != want {
			t.Errorf("%d is in %v: %v", id, o, !want)
		}
	}
}

// FuzzExtend: whatever ids there are, each has one of the node's to itself, the table is
// one that the kernel takes, and the node's own ids and those of other namespaces are not in it.
func FuzzExtend(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 255, 255, 255, 255, 255, 255, 255, 254}, uint16(1), uint16(1))
	f.Add([]byte{0, 1, 0, 0}, uint16(400), uint16(7))
	f.Add([]byte{90, 101, 1, 43}, uint16(200), uint16(9999))
	f.Fuzz(func(t *testing.T, data []byte, more, step uint16) {
		var ids []uint32
		for i := 0; i+4 <= len(data); i += 4 {
			ids = append(ids, uint32(data[i])<<24|uint32(data[i+1])<<16|uint32(data[i+2])<<8|uint32(data[i+3]))
		}
		for i := range min(more, 1000) {
			ids = append(ids, IDs+uint32(i)*uint32(step))
		}
		extents, err := Extend(ids)
		if err != nil {
			if !errors.Is(err, ErrTooManyIDs) {
				t.Fatal(err)
			}
			return
		}
		o := Owner{First: (Slots - 1) * IDs, More: extents}
		bottom := uint32(beyond + (Slots-1)*beyondSpan)
		all := o.Mappings()
		var table strings.Builder
		last, node := int64(-1), map[uint32]bool{}
		for i, m := range all {
			fmt.Fprintf(&table, "%d %d %d\n", m.Inside, m.Node, m.Size)
			if int64(m.Inside) <= last {
				t.Fatalf("%v is not in order", all)
			}
			last = int64(m.Inside) + int64(m.Size) - 1
			if i == 0 {
				continue
			}
			for n := range m.Size {
				id := m.Node + n
				if node[id] || id == math.MaxUint32 || id < bottom || id-bottom >= beyondSpan {
					t.Fatalf("%v: %d", all, id)
				}
				node[id] = true
			}
		}
		if len(all) > 340 || table.Len() >= 4096 {
			t.Fatalf("%d lines, %d bytes, %d ids", len(all), table.Len(), len(node))
		}
		for _, id := range ids {
			if id != math.MaxUint32 && !o.Has(id) {
				t.Fatalf("%d is not in %v", id, all)
			}
		}
	})
}
