package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// serve answers on port 80 with text, each request after a tenth of a second, and ends
// as a well-behaved server does: what it has begun it finishes.
func serve(text string) {
	server := &http.Server{Addr: ":80", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(100 * time.Millisecond)
		fmt.Fprintln(w, text)
	})}
	ended := make(chan struct{})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		defer close(ended)
		<-ctx.Done()
		_ = server.Shutdown(context.Background())
	}()
	log.Printf("serving %s", text)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-ended
}

// get prints what the server at url says; its exit code is that of a health check.
func get(url string) error {
	client := http.Client{Timeout: 5 * time.Second}
	r, err := client.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(os.Stdout, r.Body)
	return err
}

// reach says of each target, a name or an address, what its name server calls it, what
// its own resolver does (which looks into /etc/hosts first), and whether it answers on
// port 80.
func reach(targets []string) string {
	var b strings.Builder
	for _, target := range targets {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		found, err := net.DefaultResolver.LookupHost(ctx, target)
		known := strings.Join(found, " ")
		if err != nil {
			known = "unknown"
		}
		answer := "no answer"
		if c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp4", target+":80"); err == nil {
			answer = "answers"
			c.Close()
		}
		cancel()
		fmt.Fprintf(&b, "%-14s DNS: %-22s resolver: %-22s %s\n", target, asked(target), known, answer)
	}
	return b.String()
}

// asked is what the first server of resolv.conf says.
func asked(name string) string {
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil || len(config.Servers) == 0 {
		return "no server"
	}
	a, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA), config.Servers[0]+":53")
	if err != nil {
		return "no answer"
	}
	text := dns.RcodeToString[a.Rcode]
	for _, rr := range a.Answer {
		text += strings.TrimPrefix(rr.String(), rr.Header().String()) + " "
	}
	return strings.TrimSpace(strings.TrimPrefix(text, "NOERROR"))
}
