package api

import (
	"context"
	"errors"
	"io"
	"net"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
)

// Way opens a connection to a node.
type Way func(context.Context) (net.Conn, error)

// Direct is the way to an address.
func Direct(address string) Way {
	return func(ctx context.Context) (net.Conn, error) { return dial(ctx, address) }
}

// Go has c go another way than to its address. It comes before the first call.
func (c *Client) Go(w Way) {
	c.transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return w(ctx) }
}

// Through has c go a way through another node's client, which c closes together with itself.
func (c *Client) Through(by *Client, w Way) {
	c.Go(w)
	c.under = by
}

// Relay is the way through the node of c to another one, which the fleet's ledger calls node. What
// goes over it is TLS with that node: the one in between carries bytes, and cannot read them.
func (c *Client) Relay(node string) Way {
	return func(ctx context.Context) (net.Conn, error) {
		// The stream lives as long as the connection, not as long as this call.
		life, end := context.WithCancel(context.WithoutCancel(ctx))
		stop := context.AfterFunc(ctx, end)
		stream := c.CareServiceClient.Relay(life)
		err := stream.Send(&apiv1.RelayRequest{Node: node})
		if err == nil || errors.Is(err, io.EOF) { // the node has answered already
			_, err = stream.Receive() // the way is open
		}
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			end()
			return nil, err
		}
		near, far := net.Pipe()
		go func() {
			defer end()
			defer far.Close()
			there(stream, far)
		}()
		go func() {
			defer end()
			defer far.Close()
			back(stream, far)
		}()
		return near, nil
	}
}

// there sends what comes out of the pipe, until one of them ends.
func there(stream *connect.BidiStreamForClient[apiv1.RelayRequest, apiv1.RelayResponse], from net.Conn) {
	buffer := make([]byte, MaxInput)
	for {
		n, err := from.Read(buffer)
		if n > 0 && stream.Send(&apiv1.RelayRequest{Data: buffer[:n]}) != nil || err != nil {
			_ = stream.CloseRequest()
			return
		}
	}
}

// back puts into the pipe what the node sends.
func back(stream *connect.BidiStreamForClient[apiv1.RelayRequest, apiv1.RelayResponse], to net.Conn) {
	defer func() { _ = stream.CloseResponse() }()
	for {
		m, err := stream.Receive()
		if err != nil {
			return
		}
		if len(m.Data) == 0 { // a pipe would wait for somebody to read nothing
			continue
		}
		if _, err := to.Write(m.Data); err != nil {
			return
		}
	}
}
