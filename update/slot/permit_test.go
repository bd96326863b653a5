package slot

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"

	"kogge.example/update/armings"
	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
	"kogge.example/update/fat"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/memory"
)

// permitted are releases with digests that a permit can name.
func permitted(t *testing.T, l bootloader.Loader) (old, newer, newest made, whole map[string]made) {
	old, newer, newest = release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9), release(t, l, "1.2", 3, 6)
	for _, m := range []*made{&old, &newer, &newest} {
		m.Digest = "sha256:" + document.HashOf([]byte(m.Version)).String()
	}
	return old, newer, newest, map[string]made{"1.0": old, "1.1": newer, "1.2": newest}
}

// signedFor is a permit by the first so many owner keys.
func signedFor(state ledger.State, node string, release string, arming, height int64, signers int) ledger.Permit {
	p := ledger.Permit{Version: 1, Node: keyOf(node), Release: release, Arming: arming, Height: height}
	for i := 1; i <= signers; i++ {
		p.Owners = append(p.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), p.Bytes(state.Fleet())))
	}
	return p
}

// keyOf is the key of a node of ledgertest.
func keyOf(node string) signed.Key {
	key, _ := signed.KeyOf(ledgertest.Private(node).Public().(ed25519.PublicKey))
	return key
}

// byPermit is the right to a release and an arming on node n2.
func byPermit(t *testing.T, state ledger.State, release string, arming int64) Authorisation {
	t.Helper()
	a, err := Owners(state, keyOf("n2"), signedFor(state, "n2", release, arming, state.Height, 2))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestOwners takes the permit of a seat's owner, and nothing like one.
func TestOwners(t *testing.T) {
	state := ledgertest.Founded(t, 4, 1).Log.State()
	_, newer, newest, _ := permitted(t, loaders(t)["systemd-boot"])
	for name, p := range map[string]ledger.Permit{
		"nobody's": {}, "of one key": signedFor(state, "n2", newer.Digest, 1, 1, 1), "for another node": signedFor(state, "n3", newer.Digest, 1, 1, 2),
		"of another height": signedFor(state, "n2", newer.Digest, 1, 2, 2), "for arming 0": signedFor(state, "n2", newer.Digest, 0, 1, 2),
		"for an arming of the past": signedFor(state, "n2", newer.Digest, -7, 1, 2), "for no release": signedFor(state, "n2", "", 1, 1, 2),
		"for a version": signedFor(state, "n2", "1.1", 1, 1, 2), "changed": func() ledger.Permit {
			p := signedFor(state, "n2", newest.Digest, 1, 1, 2)
			p.Release = newer.Digest
			return p
		}(),
	} {
		if a, err := Owners(state, keyOf("n2"), p); !errors.Is(err, ErrUnauthorised) || !errors.Is(err, ledger.ErrPermit) || a.String() != "" {
			t.Errorf("%s: %v, %v", name, a, err)
		}
	}
	// A node without a seat has the fleet's owner.
	if a, err := Owners(state, keyOf("n9"), signedFor(state, "n9", newer.Digest, 1, 1, 2)); err != nil || a.String() != "the permit of owner hanse" {
		t.Errorf("%v, %v", a, err)
	}
}

// TestPermitOnce updates a node by permits, each good for one release and one arming: neither
// before nor after does it write a byte into the slot. Rolling back needs one of its own, and
// what an image brought is named by its root hash.
func TestPermitOnce(t *testing.T) {
	state := ledgertest.Founded(t, 4, 1).Log.State()
	for name, l := range loaders(t) {
		t.Run(name, func(t *testing.T) {
			old, newer, newest, whole := permitted(t, l)
			w := on(l, flash(t, l, old), forEver)
			from := running(t, w, whole)
			refused := func(what string, r made, by Authorisation) {
				t.Helper()
				before := w.off(1)
				if err := Stage(t.Context(), w.as(from), w.memory(), r.Release, by, nil); !errors.Is(err, ErrUnauthorised) {
					t.Errorf("%s: staged: %v", what, err)
				}
				if _, err := Arm(w.as(from), w.memory(), r.Digest, by, when); !errors.Is(err, ErrUnauthorised) && !errors.Is(err, ErrNotStaged) {
					t.Errorf("%s: armed: %v", what, err)
				}
				if w.off(1).sum() != before.sum() {
					t.Errorf("%s: something was written", what)
				}
			}
			first := next(t, w)
			good := byPermit(t, state, newer.Digest, first)
			refused("another release", newest, good)
			refused("a later arming", newer, byPermit(t, state, newer.Digest, first+1))
			install := func(d Disk, r made, by Authorisation) error {
				err := Stage(t.Context(), d, w.memory(), r.Release, by, nil)
				if err == nil {
					_, err = Arm(d, w.memory(), r.Digest, by, when)
				}
				return err
			}
			if err := install(w.as(from), newer, good); err != nil {
				t.Fatal(err)
			}
			if trial, _, err := memory.ReadTrial(w.memory()); err != nil || trial.By != "the permit of owner hanse" {
				t.Errorf("%+v, %v", trial, err)
			}
			refused("a used one", newer, good)
			from, err := w.try(t, from, whole, func(d Disk) error { // this retires what was armed, with its number
				err := install(d, newest, byPermit(t, state, newest.Digest, first+1))
				refused("one that was used before that", newer, good)
				return err
			})
			if err != nil || from.version != "1.2" {
				t.Fatalf("%+v, %v", from, err)
			}
			refused("one for the release that went", newer, good)
			back := func(by Authorisation) error {
				_, err := Rollback(w.as(from), w.memory(), by, when)
				return err
			}
			for what, by := range map[string]Authorisation{
				"a used one": good, "one for what runs": byPermit(t, state, newest.Digest, first+2),
				"one for another root": byPermit(t, state, ledger.RootName(fmt.Sprintf("%x", newest.Verity.Root)), first+2),
			} {
				if err := back(by); !errors.Is(err, ErrUnauthorised) {
					t.Errorf("back by %s: %v", what, err)
				}
			}
			if err := back(byPermit(t, state, ledger.RootName(fmt.Sprintf("%x", old.Verity.Root)), first+2)); err != nil {
				t.Errorf("back: %v", err)
			}
		})
	}
}

// TestPermitPowerCut cuts the power at each write while a node is updated by a permit. If the
// slot was armed, the permit is used up, whatever else was lost.
func TestPermitPowerCut(t *testing.T) {
	state := ledgertest.Founded(t, 4, 1).Log.State()
	for name, l := range loaders(t) {
		t.Run(name, func(t *testing.T) {
			old, newer, newest, whole := permitted(t, l)
			w := on(l, flash(t, l, old), forEver)
			from := running(t, w, whole)
			// Something is armed already: staging takes its number away.
			if err := stage(t.Context(), w.as(from), w.memory(), newest.Release, nil, quick); err != nil {
				t.Fatal(err)
			}
			if _, err := Arm(w.as(from), w.memory(), newest.Digest, lone(t), when); err != nil {
				t.Fatal(err)
			}
			start := w.off(1)
			by := byPermit(t, state, newer.Digest, next(t, w))
			for writes := 0; ; writes++ {
				w := on(l, start, writes)
				err := Stage(t.Context(), w.as(from), w.memory(), newer.Release, by, nil)
				if err == nil {
					_, err = Arm(w.as(from), w.memory(), newer.Digest, by, when)
				}
				if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
					t.Fatalf("writes=%d: %v", writes, err)
				}
				for seed := range uint64(16) {
					after := on(l, w.off(seed), forEver)
					armed := after.loaderState(t).Of(bootloader.B)
					again := Stage(t.Context(), after.as(from), after.memory(), newer.Release, by, nil)
					if again == nil {
						_, again = Arm(after.as(from), after.memory(), newer.Digest, by, when)
					}
					if used := armed.Present && armed.Version == newer.Version; (used || again != nil) && !errors.Is(again, ErrUnauthorised) {
						t.Fatalf("writes=%d seed=%d: armed %v, and then: %v", writes, seed, used, again)
					}
				}
				if err == nil {
					return
				}
			}
		})
	}
}

// next is the number of the next arming.
func next(t *testing.T, w *world) int64 {
	t.Helper()
	n, err := armings.Next(w.memory(), w.loaderState(t))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) loaderState(t *testing.T) (state bootloader.State) {
	t.Helper()
	err := w.Read(func(v *fat.Volume) (err error) {
		state, err = w.loader.State(v)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}
