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
)

// Node is what this computer remembers of a node.
type Node struct {
	Address string    `json:"address"` // host:port
	Adopted time.Time `json:"adopted"`
	Until   time.Time `json:"until,omitzero"` // its certificate is good, when it was last seen
	Key     string    `json:"key,omitempty"`  // that it showed then, as in fleet.Peer.Key
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
	return k.Alone(func() error {
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
	})
}

func sorted(nodes map[string]Node) []string { return slices.Sorted(maps.Keys(nodes)) }
