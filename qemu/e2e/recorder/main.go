// Command recorder is the container of the power-cut scripts: what it has answered
// for must be there for ever.
//
// In comes POST / with a line, out goes its number once the line is synced to the
// file RECORDS (default /data/records), which lies on a volume; GET / answers all
// lines as "NUMBER LINE". A last line without its end was never answered for: the
// next start takes it away. Everything else on the volume is left alone.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	terminated := make(chan os.Signal, 1)
	// As process 1 of its container a program without a handler ignores SIGTERM.
	signal.Notify(terminated, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-terminated
		os.Exit(0)
	}()
	name := os.Getenv("RECORDS")
	if name == "" {
		name = "/data/records"
	}
	r, err := open(name)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: ":8080", Handler: r, ReadHeaderTimeout: 10 * time.Second}
	log.Printf("%d records, listening on %s", r.count, server.Addr)
	log.Fatal(server.ListenAndServe())
}

// recorder is the file and its end.
type recorder struct {
	mu    sync.Mutex // guards the fields below
	file  *os.File
	count int   // records
	end   int64 // bytes
}

// open opens or makes the file, without what a cut left of a last line.
func open(name string) (*recorder, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	r := &recorder{file: f, end: int64(bytes.LastIndexByte(data, '\n') + 1)}
	r.count = bytes.Count(data[:r.end], []byte("\n"))
	folder, err := os.Open(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	return r, errors.Join(f.Truncate(r.end), f.Sync(), folder.Sync())
}

// add writes a line; it is on the disk when add returns without an error.
func (r *recorder) add(line string) (number int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf("%d %s\n", r.count+1, line)
	if _, err := r.file.WriteAt([]byte(text), r.end); err != nil {
		return 0, err
	}
	if err := r.file.Sync(); err != nil {
		return 0, err
	}
	r.count, r.end = r.count+1, r.end+int64(len(text))
	return r.count, nil
}

// all returns every record.
func (r *recorder) all() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	data := make([]byte, r.end)
	_, err := r.file.ReadAt(data, 0)
	return data, err
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	var answer []byte
	var err error
	switch {
	case q.URL.Path != "/":
		http.NotFound(w, q)
		return
	case q.Method == http.MethodGet:
		answer, err = r.all()
	case q.Method == http.MethodPost:
		var body []byte
		var number int
		if body, err = io.ReadAll(http.MaxBytesReader(w, q.Body, 4096)); err == nil {
			number, err = r.add(strings.ReplaceAll(strings.TrimSpace(string(body)), "\n", " "))
		}
		answer = fmt.Appendf(nil, "%d\n", number)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(answer)
}
