package operate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
)

// Node is what this computer remembers of a node.
type Node struct {
	Address string    `json:"address"` // host:port
	Adopted time.Time `json:"adopted"`
	Until   time.Time `json:"until,omitzero"` // its certificate is good, when it was last seen
	Key     string    `json:"key,omitempty"`  // that it showed then, as in fleet.Peer.Key
	// Seat is the key of its seat, by the fleet's ledger, and Certified the TLS key that this
	// key has certified: whoever shows another one under the node's name is not called.
	Seat      signed.Key `json:"seat,omitempty"`
	Certified string     `json:"certified,omitempty"`
}

// nodesFile lies in a fleet's folder.
const nodesFile = "nodes.json"

// Nodes returns the nodes of a fleet that this computer knows, by name.
func Nodes(k *keyring.Keyring) (map[string]Node, error) {
	nodes := make(map[string]Node)
	data, err := os.ReadFile(filepath.Join(k.Dir, nodesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nodes, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &nodes)
	}
	if err != nil {
		return nil, fmt.Errorf("nodes of fleet %s: %w", k.Genesis.Name, err)
	}
	return nodes, nil
}

// RememberNode adds a node to the fleet's folder, or replaces it.
func RememberNode(k *keyring.Keyring, name string, n Node) error {
	return ChangeNodes(k, func(nodes map[string]Node) { nodes[name] = n })
}

// ChangeNodes changes what the fleet's folder remembers of nodes, while no other program
// does. After a power cut that is as it was before or after.
func ChangeNodes(k *keyring.Keyring, change func(nodes map[string]Node)) error {
	return k.Alone(func() error { return changeNodes(k, change) })
}

func changeNodes(k *keyring.Keyring, change func(nodes map[string]Node)) error {
	nodes, err := Nodes(k)
	if err != nil {
		return err
	}
	change(nodes)
	data, err := json.MarshalIndent(nodes, "", "\t")
	if err == nil {
		err = durable.Replace(filepath.Join(k.Dir, nodesFile), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("nodes of fleet %s: %w", k.Genesis.Name, err)
	}
	return nil
}

// noteSeats remembers the keys of the seats that the fleet's ledger has. The folder is locked
// already.
func noteSeats(k *keyring.Keyring, s ledger.State) error {
	return changeNodes(k, func(nodes map[string]Node) {
		for name, n := range nodes {
			seat, _ := s.Roster.ByName(name)
			if n.Seat != seat.Key {
				n.Seat, n.Certified = seat.Key, ""
				nodes[name] = n
			}
		}
	})
}

func sorted(nodes map[string]Node) []string { return slices.Sorted(maps.Keys(nodes)) }
