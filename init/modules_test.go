package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestTableModules looks for the words of the agent's tables that a module carries out. Each
// one that is not loaded yet costs a boot two processes and another try of the whole table.
func TestTableModules(t *testing.T) {
	table, err := os.ReadFile("../agent/bridge/testdata/table.nft")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for word, module := range map[string]string{
		"type nat ": "nft_chain_nat", "dnat to": "nft_nat", "masquerade": "nft_masq", "redirect": "nft_redir", "fib ": "nft_fib_ipv4", "ct state": "nft_ct",
		"ct count": "nft_connlimit", "limit rate": "nft_limit", "reject": "nft_reject_ipv4", "log ": "nft_log", "quota ": "nft_quota", "numgen ": "nft_numgen",
		"hash ": "nft_hash", "queue ": "nft_queue", "tproxy ": "nft_tproxy", "socket ": "nft_socket", "synproxy ": "nft_synproxy", "tunnel ": "nft_tunnel",
	} {
		if !strings.Contains(string(table), word) {
			continue
		}
		found++
		if !slices.Contains(wanted, module) {
			t.Errorf("tables say %q, and module %s is not among those that a boot loads", word, module)
		}
	}
	if found < 6 {
		t.Errorf("only %d of the words were found: is the table still written so?", found)
	}
}
