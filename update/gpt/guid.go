package gpt

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
)

// GUID names a disk, a partition or a kind of partition. The bytes are in the
// order in which the text shows them (RFC 9562); on disk the first three fields
// are little-endian, which is the business of Encode and Read alone.
type GUID [16]byte

// Kinds of partition.
//
// Source: UEFI specification 2.10, table 5.7, and uapi-group.org/specifications,
// "Discoverable Partitions".
var (
	EFISystem = GUID{0xc1, 0x2a, 0x73, 0x28, 0xf8, 0x1f, 0x11, 0xd2, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	// ExtendedBoot holds kernels, and is no place for what firmware wants to keep.
	// bc13c2ff-59e6-4262-a352-b275fd6f7172
	ExtendedBoot = GUID{0xbc, 0x13, 0xc2, 0xff, 0x59, 0xe6, 0x42, 0x62, 0xa3, 0x52, 0xb2, 0x75, 0xfd, 0x6f, 0x71, 0x72}
	LinuxData    = GUID{0x0f, 0xc6, 0x3d, 0xaf, 0x84, 0x83, 0x47, 0x72, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4}
)

// Root is the kind of a root file system by Go's name of its architecture, so that
// tools see for which one an image is.
//
// Source: uapi-group.org/specifications, "Discoverable Partitions".
func Root(arch string) GUID {
	switch arch {
	case "amd64": // 4f68bce3-e8cd-4db1-96e7-fbcaf984b709
		return GUID{0x4f, 0x68, 0xbc, 0xe3, 0xe8, 0xcd, 0x4d, 0xb1, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09}
	case "arm64": // b921b045-1df0-41c3-af44-4c6f280d3fae
		return GUID{0xb9, 0x21, 0xb0, 0x45, 0x1d, 0xf0, 0x41, 0xc3, 0xaf, 0x44, 0x4c, 0x6f, 0x28, 0x0d, 0x3f, 0xae}
	}
	return LinuxData
}

// ParseGUID reads the form 8-4-4-4-12 hex digits, in either case.
func ParseGUID(text string) (GUID, error) {
	var g GUID
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return GUID{}, fmt.Errorf("GUID %q: want the form 01234567-89ab-cdef-0123-456789abcdef", text)
	}
	digits := text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:]
	if _, err := hex.Decode(g[:], []byte(digits)); err != nil {
		return GUID{}, fmt.Errorf("GUID %q: %w", text, err)
	}
	return g, nil
}

// String gives the lower-case form, as Linux shows it in sysfs and in
// LoaderDevicePartUUID once that is lower-cased.
func (g GUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])
}

// DeriveGUID returns the same GUID for the same seed and name, and another one
// for any other pair: a version 8 UUID over SHA-256. An image uses it so that two
// builds of one release are equal byte for byte.
func DeriveGUID(seed, name string) GUID {
	h := sha256.New()
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(seed))) // "ab"+"c" is not "a"+"bc"
	h.Write(length[:])
	io.WriteString(h, seed)
	io.WriteString(h, name)
	var g GUID
	copy(g[:], h.Sum(nil))
	return g.versioned(8)
}

// RandomGUID returns a version 4 UUID.
func RandomGUID() GUID {
	var g GUID
	rand.Read(g[:]) // never fails: crypto/rand ends the program instead
	return g.versioned(4)
}

func (g GUID) versioned(version byte) GUID {
	g[6] = g[6]&0x0f | version<<4
	g[8] = g[8]&0x3f | 0x80
	return g
}

// swapped turns the text order into the order on disk, and back.
func (g GUID) swapped() GUID {
	g[0], g[1], g[2], g[3] = g[3], g[2], g[1], g[0]
	g[4], g[5] = g[5], g[4]
	g[6], g[7] = g[7], g[6]
	return g
}
