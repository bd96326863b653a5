//go:build !testport

package main

// testPort does nothing in a release: see testport.go.
func (*node) testPort() {}
