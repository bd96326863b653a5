package workload

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// IDs is how many user and group ids every user namespace has: 0 to 65535. Those beyond
// are [Extents].
const IDs = 1 << 16

// MaxBeyond is how many ids beyond [IDs] a container has at most, and maxText how many bytes
// their extents are as text: the kernel takes a table of less than a page, where each has up
// to 24 bytes, and containerd a label of 4096 with its name.
//
// Source: map_write in kernel/user_namespace.c of the kernel; pkg/labels of containerd.
const (
	MaxBeyond = 300
	maxText   = 4000
)

// Extents are ranges of ids beyond [IDs]: FIRST:SIZE, in order and separated by commas. They
// are text so that they can be compared.
type Extents string

// ErrTooManyIDs means that a container has more ids beyond [IDs] than can be mapped.
var ErrTooManyIDs = fmt.Errorf("more user and group IDs above %d than a node can map: %d, and fewer where they are far apart", IDs-1, MaxBeyond)

// Extend makes extents of ids, in any order. Those that every namespace has are left out,
// and so is the one that is none (-1). Ids that are far too many lines get those between
// them too, as far as that goes.
func Extend(ids []uint32) (Extents, error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	ids = slices.DeleteFunc(ids, func(id uint32) bool { return id < IDs || id == math.MaxUint32 })
	if len(ids) > MaxBeyond {
		return "", ErrTooManyIDs
	}
	for step := uint32(1); ; step *= 2 {
		extents, bytes, span := extend(ids, step)
		if span > beyondSpan {
			return "", ErrTooManyIDs
		}
		if bytes <= maxText {
			return extents, nil
		}
	}
}

// extend makes one extent of ids that are no further apart than step. bytes is the size of
// the table, at its worst, and span how many ids it has.
func extend(ids []uint32, step uint32) (all Extents, bytes int, span uint64) {
	var b strings.Builder
	for len(ids) > 0 {
		n := 1
		for n < len(ids) && ids[n]-ids[n-1] <= step {
			n++
		}
		size := uint64(ids[n-1]-ids[0]) + 1
		one := fmt.Sprintf("%d:%d", ids[0], size)
		if span > 0 {
			b.WriteByte(',')
		}
		b.WriteString(one)
		ids, bytes, span = ids[n:], bytes+len(one)+len(" 4294967295\n"), span+size
	}
	return Extents(b.String()), bytes, span
}

// Mapping is a range of ids in a user namespace, and what they are on the node.
type Mapping struct{ Inside, Node, Size uint32 }

// Of the node's ids the lower half is for the first [IDs] of each namespace, the upper half
// for the further ones: for that of each slot (First is slot × IDs) so many.
const (
	beyond     = 1 << 31
	beyondSpan = beyond / (Slots + 1)
)

// Slots is how many user namespaces there can be, from 1 on; 0 is the node's.
const Slots = 1<<12 - 1

// Mappings are all ids of the namespace, in order. Each of the further ones has an id of
// the node of its own.
func (o Owner) Mappings() []Mapping {
	all := []Mapping{{0, o.First, IDs}}
	next := beyond + o.First/IDs*beyondSpan
	for one := range strings.SplitSeq(string(o.More), ",") {
		first, size, _ := strings.Cut(one, ":")
		id, err1 := strconv.ParseUint(first, 10, 32)
		n, err2 := strconv.ParseUint(size, 10, 32)
		if err1 != nil || err2 != nil {
			continue // the empty one: no other is made
		}
		all = append(all, Mapping{uint32(id), next, uint32(n)})
		next += uint32(n)
	}
	return all
}

// Has says whether id is one of the namespace.
func (o Owner) Has(id uint32) bool {
	return slices.ContainsFunc(o.Mappings(), func(m Mapping) bool { return id >= m.Inside && id-m.Inside < m.Size })
}

// Beyond are the ids beyond [IDs] that c names, and those that its image has for it (see
// [Container.With]). The error is [ErrTooManyIDs].
func (c Container) Beyond() (Extents, error) {
	all := slices.Clone(c.ids)
	for _, id := range append(strings.Split(c.User, ":"), c.GroupAdd...) {
		all = append(all, NumberedIDs(id)...)
	}
	for _, t := range c.Tmpfs {
		all = append(all, t.UID, t.GID)
	}
	for _, f := range c.Files {
		all = append(all, uint32(max(f.UID, 0)), uint32(max(f.GID, 0)))
	}
	return Extend(all)
}

// NumberedIDs are the numbers of users and groups in USER:GROUP; names are left out.
func NumberedIDs(user string) (all []uint32) {
	for id := range strings.SplitSeq(user, ":") {
		if n, err := strconv.ParseInt(id, 10, 64); err == nil && n >= 0 && n < math.MaxUint32 { // as containerd reads it
			all = append(all, uint32(n))
		}
	}
	return all
}
