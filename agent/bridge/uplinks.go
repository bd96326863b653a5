package bridge

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// uplinks has containers answer by the link where the question came in, where the node has
// several ways out: a connection from outside bears the index of its link as a mark, and
// what a container answers gets that for itself. init/network has the rules that go by it.
// A connection that a container begins bears none.
func (b *builder) uplinks() {
	c := b.chain("uplinks", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle)
	b.rule(c, iif(ours, expr.CmpOpNeq), ct(expr.CtKeySTATE, expr.CtStateBitNEW), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
	})
	b.rule(c, iif(ours, expr.CmpOpEq), []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
	})
}
