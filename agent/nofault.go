//go:build !faults

package main

import "context"

// fault does nothing in a release: see fault.go.
func fault(context.Context, string) (broken bool, err error) { return false, nil }
