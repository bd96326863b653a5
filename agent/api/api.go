// Package api is the node's API: the contract in kogge/v1, its handlers, and the client
// side that the command line uses.
//
// Calls come in over TLS on one port, as Connect, gRPC or plain JSON; each is let
// through by the role in the caller's certificate, before a byte of its body is
// read. Answers come from PID 1's control socket, the kernel's files and the keeper
// of the containers. The package decides nothing about workloads and stores nothing
// but what adoption brings.
package api

//go:generate ./generate

// Port is where a node answers, TCP.
const Port = 7443
