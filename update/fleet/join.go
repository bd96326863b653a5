package fleet

import (
	"bytes"
	"fmt"
	"strings"
)

// JoinName is the file beside node.yaml that lets a node into a fleet.
const JoinName = "join.yaml"

// JoinFile is what join.yaml says.
type JoinFile struct {
	Genesis *Genesis
	Token   Token
}

// MarshalJoinFile writes join.yaml. The text holds the token: it is a secret.
func MarshalJoinFile(j *JoinFile) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Lets a node into the fleet %q. The token is a secret: keep this file to yourself,\n", j.Genesis.Name)
	b.WriteString("# and delete it when the node is in. It lies beside node.yaml on the boot partition.\n")
	fmt.Fprintf(&b, "fleet: %s\ntoken: %s\n", j.Genesis.ID(), j.Token.Text())
	b.WriteString("# How the fleet began, with the certificates that the node believes. To the byte:\n# the fleet's id is its SHA-256.\ngenesis: |\n")
	for line := range strings.Lines(string(j.Genesis.Bytes())) {
		b.WriteString("  " + line)
	}
	return b.Bytes()
}
