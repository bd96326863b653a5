package fleet

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
)

// JoinName is the file beside node.yaml that lets a node into a fleet.
const JoinName = "join.yaml"

// JoinFile is what join.yaml says.
type JoinFile struct {
	Genesis *Genesis
	Token   Token
	// Record is what an operator has said of the token, as update/fleet/token writes it: with it
	// the node comes into a founded fleet by itself. Empty: an operator's computer takes it in.
	Record []byte
	// Members are where members of the fleet may answer.
	Members []netip.AddrPort
}

// MarshalJoinFile writes join.yaml. The text holds the token: it is a secret.
func MarshalJoinFile(j *JoinFile) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Lets a node into the fleet %q. The token is a secret: keep this file to yourself,\n", j.Genesis.Name)
	b.WriteString("# and delete it when the node is in. It lies beside node.yaml on the boot partition.\n")
	fmt.Fprintf(&b, "fleet: %s\ntoken: %s\n", j.Genesis.ID(), j.Token.Text())
	if len(j.Record) > 0 {
		fmt.Fprintf(&b, "# What an operator has said of the token. It is public.\nrecord: %s\n", base64.StdEncoding.EncodeToString(j.Record))
	}
	if len(j.Members) > 0 {
		var all []string
		for _, m := range j.Members {
			all = append(all, m.String())
		}
		fmt.Fprintf(&b, "# Where members of the fleet may answer.\nmembers: %q\n", strings.Join(all, " "))
	}
	b.WriteString("# How the fleet began, with the certificates that the node believes. To the byte:\n# the fleet's id is its SHA-256.\ngenesis: |\n")
	for line := range strings.Lines(string(j.Genesis.Bytes())) {
		b.WriteString("  " + line)
	}
	return b.Bytes()
}
