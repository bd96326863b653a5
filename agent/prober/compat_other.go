//go:build !amd64

package main

// compat is what a kernel says that knows no calls of another width: package compat_amd64
// tries those of x86. A 32-bit ARM program makes its sockets by the call that is filtered.
func compat(string) string { return "ENOSYS" }
