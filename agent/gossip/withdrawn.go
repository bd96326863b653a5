package gossip

import (
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	orders "kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
)

// This file is what becomes of keys that were withdrawn on this node. Others may not know of that,
// and are not to be in the way of what counts here: behind an order that counts with them alone
// they keep the newest one by another operator, and pass on both.

// revoked says whether a key was.
func (e *Engine) revoked(key document.Hash) bool {
	return e.config.Revoked != nil && e.config.Revoked(key)
}

// trusted is the ledger's state without operators whose keys were withdrawn.
func (e *Engine) trusted() ledger.State {
	return e.state.Without(func(key string) bool {
		id, err := document.ParseHash(key)
		return err == nil && e.revoked(id)
	})
}

// withdrawn says whether an object is refused for that: an operator with such a key has signed it,
// and it is not the owner who counts in it, or it is a seat's word for a TLS key and would take the
// place of its word for one that was withdrawn. Whoever has a seat's key could else get rid of that
// by another TLS key. It fits the shelf's Withdrawn.
func (e *Engine) withdrawn(object signed.Envelope, held []signed.Envelope) bool {
	if operator, ok := object.By.Operator(); ok {
		return object.Kind != orders.RestoringKind && e.revoked(operator)
	}
	if object.Kind != notice.TLSKeyKind {
		return false
	}
	says, err := notice.OpenTLSKey(object)
	return err == nil && slices.ContainsFunc(held, func(before signed.Envelope) bool {
		said, err := notice.OpenTLSKey(before)
		return err == nil && said.Key != says.Key && e.revoked(said.Key)
	})
}

// outdated says whether a session stands on a TLS key that its seat does not call its own any
// more, or that was withdrawn. One that stands on none is not.
func (e *Engine) outdated(conn Session) bool {
	by, ok := conn.(interface{ TLSKey() document.Hash })
	if !ok {
		return false
	}
	return e.revoked(by.TLSKey()) || e.disowned(conn.Peer(), by.TLSKey())
}

// disowned says whether a seat calls another TLS key its own, by the word of it that counts.
func (e *Engine) disowned(seat signed.Key, tlsKey document.Hash) bool {
	word, ok := e.shelf.Get(notice.TLSKeyKind, seat)
	if !ok {
		return false
	}
	now, err := notice.OpenTLSKey(word)
	return err == nil && now.Key != tlsKey
}
