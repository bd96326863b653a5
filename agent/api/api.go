// Package api is the node's API as both sides see it: the contract in kogge/v1, and the
// client that the command line uses. Its handlers are in package serve.
//
// Calls go over TLS to one port, as Connect, gRPC or plain JSON; the role in the caller's
// certificate says which of them he may make.
package api

//go:generate ./generate

import "kogge.example/agent/workload"

// Port is where a node answers, TCP.
const Port = workload.APIPort

// MemberPort is where the members' etcd answer each other, TCP, as founding says.
const MemberPort = workload.MemberPort
