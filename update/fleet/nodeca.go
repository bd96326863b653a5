package fleet

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
)

// nodeCAExtensions are those of a node CA as [NewCA] makes it, in DER: what it is for (to sign certificates), what
// those whom it signs are for, and that one more CA may stand below it. A fourth one is the name of its key.
var nodeCAExtensions = []struct {
	id       string
	critical bool
	value    string // "": any of 20 bytes
}{
	{"2.5.29.15", true, "\x03\x02\x02\x04"},
	{"2.5.29.37", false, "\x30\x14\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02"},
	{"2.5.29.19", true, "\x30\x06\x01\x01\xff\x02\x01\x01"},
	{"2.5.29.14", false, ""},
}

// ParseNodeCA is [ParseCA] for one that a fleet decides about: it is as [NewCA] makes it, and no other. With
// other limits than those no node could connect by its signature, and what else an extension may be is
// judged by each release of Go in its own way, while a decided record has to be read for ever.
func ParseNodeCA(der []byte) (*x509.Certificate, error) {
	c, err := ParseCA(der)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(c.RawSubject, c.RawIssuer) || c.SerialNumber.Sign() < 1 || c.SerialNumber.BitLen() > 160 {
		return nil, errors.New("its names differ, or its number is no number of a certificate")
	}
	if len(c.Extensions) != len(nodeCAExtensions) {
		return nil, fmt.Errorf("%d extensions: a node CA of a fleet has %d", len(c.Extensions), len(nodeCAExtensions))
	}
	for i, want := range nodeCAExtensions {
		e := c.Extensions[i]
		value := want.value
		if value == "" && len(e.Value) == 22 {
			value = "\x04\x14" + string(e.Value[2:])
		}
		if e.Id.String() != want.id || e.Critical != want.critical || string(e.Value) != value {
			return nil, fmt.Errorf("extension %s is not as that of a node CA of a fleet", e.Id)
		}
	}
	return c, nil
}
