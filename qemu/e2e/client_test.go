package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// patience is how long a client waits for one answer: a slow answer is no failure.
const patience = 60 * time.Second

// poller asks a container again and again and keeps count.
type poller struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex // guards the fields below
	asked  int
	first  int // the container's own count of requests, from its answers
	last   int
	failed []string
}

var requestCount = regexp.MustCompile(`request (\d+)`)

// poll starts a client of the guest's port.
func (n *node) poll(guest int) error {
	if n.poller != nil {
		return errors.New("a client polls already")
	}
	url, err := n.url(guest)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &poller{cancel: cancel, done: make(chan struct{})}
	n.poller = p
	go func() {
		defer close(p.done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			body, err := request(ctx, http.MethodGet, url, "")
			if ctx.Err() == nil {
				p.count(body, err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	return nil
}

// count takes one answer in. A container that counts backwards has been started anew.
func (p *poller) count(body string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	m := requestCount.FindStringSubmatch(body)
	switch {
	case err != nil:
		p.failed = append(p.failed, fmt.Sprintf("request %d: %v", p.asked, err))
	case m == nil:
		p.failed = append(p.failed, fmt.Sprintf("request %d: answer %.80q", p.asked, body))
	default:
		number, _ := strconv.Atoi(m[1])
		if number <= p.last {
			p.failed = append(p.failed, fmt.Sprintf("request %d: the container counts %d after %d", p.asked, number, p.last))
		}
		if p.last = number; p.first == 0 {
			p.first = number
		}
	}
}

// polled waits until the client has asked at least n times more, so that what was
// done before has had its effect, then ends it. Any failed request is an error.
func (n *node) polled(ctx context.Context, more int) (string, error) {
	p := n.poller
	if p == nil {
		return "", errors.New("no client polls")
	}
	p.mu.Lock()
	enough := p.asked + more
	p.mu.Unlock()
	err := until(ctx, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.asked >= enough || len(p.failed) > 0
	})
	p.cancel()
	<-p.done
	n.poller = nil
	if len(p.failed) > 0 {
		return "", fmt.Errorf("%d of %d requests failed:\n\t%s", len(p.failed), p.asked, strings.Join(p.failed[:min(len(p.failed), 5)], "\n\t"))
	}
	return fmt.Sprintf("%d requests, none failed; the container counted %d to %d\n", p.asked, p.first, p.last), err
}

// writer is a client of the recorder: it writes one record after the other and
// keeps what was answered for.
type writer struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex // guards the fields below
	acked []string   // "NUMBER LINE", as the recorder lists them
	err   error      // what ended it
}

// record starts the client. It ends with the first request that fails.
func (n *node) record(guest int) error {
	if n.writer != nil {
		n.writer.cancel()
		<-n.writer.done
		n.acked = append(n.acked, n.writer.acked...)
	}
	url, err := n.url(guest)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{cancel: cancel, done: make(chan struct{})}
	n.writer = w
	n.lives++
	life := n.lives
	go func() {
		defer close(w.done)
		for i := 0; ; i++ {
			line := fmt.Sprintf("life %d record %d", life, i)
			body, err := request(ctx, http.MethodPost, url, line)
			w.mu.Lock()
			if err == nil {
				w.acked = append(w.acked, strings.TrimSpace(body)+" "+line)
			}
			w.err = err
			w.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return nil
}

// recorded waits until this life's client has count records answered for.
func (n *node) recorded(ctx context.Context, count int) error {
	w := n.writer
	if w == nil {
		return errors.New("no client records")
	}
	var have int
	var ended error
	err := until(ctx, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		have, ended = len(w.acked), w.err
		return have >= count || ended != nil
	})
	if have < count {
		return errors.Join(fmt.Errorf("%d records of %d", have, count), err, ended)
	}
	return nil
}

// records compares what the recorder has with what it answered for in all lives.
func (n *node) records(ctx context.Context, guest int) (string, error) {
	if n.writer != nil {
		n.writer.cancel()
		<-n.writer.done
		n.acked = append(n.acked, n.writer.acked...)
		n.writer = nil
	}
	_, body, err := n.vm.WaitHTTP(ctx, guest, "/")
	if err != nil {
		return "", err
	}
	have := map[string]bool{}
	for line := range strings.Lines(string(body)) {
		have[strings.TrimSpace(line)] = true
	}
	var lost []string
	for _, line := range n.acked {
		if !have[line] {
			lost = append(lost, line)
		}
	}
	if len(lost) > 0 {
		return "", fmt.Errorf("%d of %d records were answered for and are lost, the first is %q", len(lost), len(n.acked), lost[0])
	}
	return fmt.Sprintf("%d records answered for, %d there\n", len(n.acked), len(have)), nil
}

// url leads to the guest's port.
func (n *node) url(guest int) (string, error) {
	port, err := n.vm.Port(guest)
	return fmt.Sprintf("http://127.0.0.1:%d/", port), err
}

// request is one request over a connection of its own. Anything but 200 is an error.
func request(ctx context.Context, method, url, body string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %s", patience))
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(q)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %.200q", answer.Status, text)
	}
	return string(text), err
}

// until polls a condition of this process.
func until(ctx context.Context, met func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
