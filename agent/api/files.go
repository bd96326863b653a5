package api

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
)

// Load sends a tar of images to the node and returns the names of the images.
func (c *Client) Load(ctx context.Context, tar io.Reader) ([]string, error) {
	stream := c.LoadImages(ctx)
	part := make([]byte, PartSize)
	for {
		n, err := io.ReadFull(tar, part)
		if n > 0 {
			if err := stream.Send(&apiv1.LoadImagesRequest{Part: part[:n]}); err != nil {
				break // the answer says why
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, err // the stream ends without an end: the node takes nothing
		}
	}
	answer, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return answer.Msg.Names, nil
}

// PackSupport has the node pack an archive, and writes it to w.
func (c *Client) PackSupport(ctx context.Context, output bool, w io.Writer) error {
	stream, err := c.UpkeepServiceClient.Support(ctx, connect.NewRequest(&apiv1.SupportRequest{Output: output}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if _, err := w.Write(stream.Msg().Part); err != nil {
			return err
		}
	}
	return stream.Err()
}
