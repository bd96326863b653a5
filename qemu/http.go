package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// maxBody bounds what WaitHTTP reads of an answer.
const maxBody = 1 << 20

// Port returns the host's port that leads to a TCP port of the guest.
func (v *VM) Port(guest int) (int, error) {
	for _, f := range v.Forwards {
		if f.Guest == guest && !f.UDP {
			return f.Host, nil
		}
	}
	return 0, fmt.Errorf("vm %s: no port is forwarded to guest port %d", v.Name, guest)
}

// WaitHTTP asks for http://127.0.0.1:PORT/path, where PORT leads to the guest's
// port, until it gets an answer, and returns its status and up to 1 MiB of its
// body. Any status is an answer. It fails where ctx ends, QEMU ends or the guest
// stands still.
func (v *VM) WaitHTTP(ctx context.Context, guestPort int, path string) (status int, body []byte, err error) {
	port, err := v.Port(guestPort)
	if err != nil {
		return 0, nil, err
	}
	url := fmt.Sprintf("http://127.0.0.1:%d%s", port, path)
	// QEMU accepts at once and hangs up when nobody listens in the guest, so no
	// connection may be kept, and one try must not wait for ever.
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	last := errors.New("no try was made")
	for {
		if err := v.halted(); err != nil {
			return 0, nil, fmt.Errorf("vm %s: wait for %s: %w; console log %s", v.Name, url, err, v.Console().Path)
		}
		if status, body, err = get(ctx, client, url); err == nil {
			return status, body, nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, nil, fmt.Errorf("vm %s: wait for %s: %w (last try: %w); console log %s",
				v.Name, url, context.Cause(ctx), last, v.Console().Path)
		}
	}
}

func get(ctx context.Context, client *http.Client, url string) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	return response.StatusCode, body, err
}
