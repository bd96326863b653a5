package bootloader

import (
	_ "embed"
	"encoding/binary"
	"hash/crc32"
)

// ScriptFile is the name under which U-Boot looks for a script to run on a boot
// partition.
const ScriptFile = "boot.scr"

// uBootScript chooses a slot, counts its try and starts it. It is fixed: a release
// does not bring one.
//
//go:embed boot.cmd
var uBootScript string

// UBootCmdline is the boot file "cmdline": the text that U-Boot imports as its
// variable bootargs.
func UBootCmdline(line string) []byte { return []byte("bootargs=" + line + "\n") }

// BootScript returns the content of [ScriptFile]: the script in the wrapping of a
// "legacy" U-Boot image. The same bytes every time.
//
// Source: struct legacy_img_hdr and image_multi_count in include/image.h of U-Boot 2025.01.
func BootScript() []byte {
	const (
		magic      = 0x27051956
		headerSize = 64
		osLinux    = 5
		archARM64  = 22 // U-Boot runs scripts for any
		typeScript = 6
	)
	be := binary.BigEndian
	// A script is the first of several files: a table of their sizes comes before it,
	// and a zero ends the table.
	body := be.AppendUint32(nil, uint32(len(uBootScript)))
	body = be.AppendUint32(body, 0)
	body = append(body, uBootScript...)
	header := make([]byte, headerSize)
	be.PutUint32(header[0:], magic)
	// Bytes 4 to 8 are the header's checksum, below; the time at 8 stays zero.
	be.PutUint32(header[12:], uint32(len(body)))
	be.PutUint32(header[24:], crc32.ChecksumIEEE(body))
	header[28], header[29], header[30] = osLinux, archARM64, typeScript
	copy(header[32:headerSize-1], "Kogge boot script")
	be.PutUint32(header[4:], crc32.ChecksumIEEE(header))
	return append(header, body...)
}
