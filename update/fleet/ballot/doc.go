// Package ballot is what seats sign when they decide a record of their ledger: proposals of the chair,
// prevotes and precommits, the proof that a seat has voted twice, and what a seat asks the others after a
// boot.
//
// In come bytes of strangers, and who may vote at a height; out go ballots whose signatures fit. What is
// made of them is update/fleet/vote's to say.
package ballot
