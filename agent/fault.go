//go:build faults

package main

import (
	"context"
	"errors"
	"log"

	"kogge.example/update/cmdline"
)

// faults are what kogge.fault=NAME on the kernel command line makes of a role; tests
// show with them that a node gets rid of a release that is broken like this. They
// exist only under the build tag faults; a release has none of it.
//
// Those of PID 1 are in init/fault.go.
var faults = map[string]map[string]func(context.Context) error{
	"agent": {
		// Never ready and never at work, for as long as PID 1 bears it.
		"agent-sick": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
	},
	"containerd": {
		"containerd-broken": func(context.Context) error { return errors.New("broken on purpose") },
	},
}

// fault carries out what the kernel command line names for this role. It says false
// where there is nothing to break.
func fault(ctx context.Context, role string) (broken bool, err error) {
	words, err := cmdline.Read(cmdline.File)
	if err != nil {
		return true, err
	}
	if do := faults[role][words.Fault]; do != nil {
		log.Printf("fault %s: this image is for tests", words.Fault)
		return true, do(ctx)
	}
	return false, nil
}
