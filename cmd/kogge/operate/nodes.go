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
	// Lost is the seat's key by the ledger which the node does not have any more, as somebody
	// here has confirmed. Then Seat is the key that it has shown instead; "": it showed none, and
	// is known by Certified alone.
	Lost signed.Key `json:"lost,omitempty"`
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

// changeNodes fills in the keys of the seats that nodes have by the fleet's ledger, so that no way
// of coming to know a node leaves it unchecked.
func changeNodes(k *keyring.Keyring, change func(nodes map[string]Node)) error {
	nodes, err := Nodes(k)
	if err != nil {
		return err
	}
	change(nodes)
	var l *ledger.Log
	for name, n := range nodes {
		if n.Seat != "" || n.Lost != "" {
			continue // it was looked up before
		}
		if l == nil {
			if l, _, err = Ledger(k); err != nil {
				return err
			}
		}
		if seat, ok := l.State().Roster.ByName(name); ok {
			n.Seat, n.Certified = seat.Key, ""
			nodes[name] = n
		}
	}
	return storeNodes(k, nodes)
}

func storeNodes(k *keyring.Keyring, nodes map[string]Node) error {
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
	nodes, err := Nodes(k)
	if err != nil || !seatAll(nodes, s) {
		return err
	}
	return storeNodes(k, nodes)
}

// seatAll gives nodes the keys of their seats, and says whether that has changed any. A key that is
// lost comes back by a new seat alone. Before the founding nothing is known of seats.
func seatAll(nodes map[string]Node, s ledger.State) (changed bool) {
	if s.Height == 0 {
		return false
	}
	for name, n := range nodes {
		seat, _ := s.Roster.ByName(name)
		if n.Lost != "" && n.Lost == seat.Key || n.Lost == "" && n.Seat == seat.Key {
			continue
		}
		if n.Lost = ""; n.Seat != seat.Key {
			n.Seat, n.Certified = seat.Key, ""
		}
		nodes[name], changed = n, true
	}
	return changed
}

func sorted(nodes map[string]Node) []string { return slices.Sorted(maps.Keys(nodes)) }
