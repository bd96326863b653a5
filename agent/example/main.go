// Command example is the container that a fresh image serves: it answers
// GET / with the node's greeting, so that somebody sees at once that everything
// below it works.
//
// In come PORT (default 8080) and RELEASE from the environment; out go answers
// over HTTP. It reads and writes nothing else, and leaves on SIGTERM at once.
//
// As "app inside", which kogge exec runs beside it, it tells what a container sees.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "inside" {
		inside(os.Stdout)
		return
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	host, err := os.Hostname()
	if err != nil {
		log.Fatalf("host name: %v", err)
	}
	terminated := make(chan os.Signal, 1)
	// As process 1 of its container a program without a handler ignores SIGTERM.
	signal.Notify(terminated, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-terminated
		os.Exit(0)
	}()
	server := &http.Server{
		Addr:              ":" + port,
		Handler:           handler(host, os.Getenv("RELEASE")),
		ReadHeaderTimeout: 10 * time.Second,
	}
	log.Printf("listening on %s", server.Addr)
	log.Fatal(server.ListenAndServe())
}

// handler answers GET / with lines: who, which release if that is known, how often.
func handler(host, release string) http.Handler {
	who := fmt.Sprintf("Hello from %s.\n", host)
	if release != "" {
		who += fmt.Sprintf("release %s\n", release)
	}
	var requests atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "%srequest %d\n", who, requests.Add(1))
	})
	return mux
}
