// Command shop is what a team of a shop would write: it takes orders over HTTP, puts
// them into a queue, and from there into a database.
//
//	shop serve      POST /orders, GET /orders
//	shop work       from the queue into the database
//	shop check URL  for health checks of images without a shell
//	shop order URL WHAT  as a customer does
//
// $DATABASE and $QUEUE say where those are; the database's password is in the file
// $PASSWORD_FILE.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	verb := append(os.Args, "", "")[1]
	err := fmt.Errorf("there is no verb %q", verb)
	switch verb {
	case "serve":
		err = serve(ctx)
	case "work":
		err = work(ctx)
	case "check":
		err = ask(http.Get(append(os.Args, "", "")[2]))
	case "order":
		err = ask(http.Post(append(os.Args, "", "")[2], "text/plain", strings.NewReader(append(os.Args, "", "", "")[3])))
	}
	if err != nil && ctx.Err() == nil {
		log.Fatalf("shop %s: %v", verb, err)
	}
}

// open connects to the database and makes its table.
func open(ctx context.Context) (*pgxpool.Pool, error) {
	password, err := os.ReadFile(os.Getenv("PASSWORD_FILE"))
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE"))
	if err != nil {
		return nil, err
	}
	config.ConnConfig.Password = strings.TrimSpace(string(password))
	db, err := pgxpool.NewWithConfig(ctx, config)
	if err == nil {
		// Both verbs do it, at the same time; "if not exists" alone is no match for that.
		_, err = db.Exec(ctx, "do $$ begin perform pg_advisory_xact_lock(1); "+
			"create table if not exists orders (id bigint primary key, what text not null); end $$")
	}
	return db, err
}

// queue connects to the queue and makes its stream.
func queue(ctx context.Context) (jetstream.JetStream, jetstream.Stream, error) {
	conn, err := nats.Connect(os.Getenv("QUEUE"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, nil, err
	}
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}, Storage: jetstream.FileStorage})
	return js, stream, err
}

func serve(ctx context.Context) error {
	db, err := open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	js, _, err := queue(ctx)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		what, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
		if err == nil {
			_, err = js.Publish(r.Context(), "orders", what)
		}
		answer(w, "ordered\n", err)
	})
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		var list string
		err := db.QueryRow(r.Context(), "select coalesce(string_agg(what, ',' order by id), 'nothing') from orders").Scan(&list)
		answer(w, list+"\n", err)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) { answer(w, "well\n", db.Ping(r.Context())) })
	server := http.Server{Addr: ":8000", Handler: mux}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	log.Print("shop: serving")
	return server.ListenAndServe()
}

func answer(w http.ResponseWriter, text string, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, text)
}

func work(ctx context.Context) error {
	db, err := open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	_, stream, err := queue(ctx)
	if err != nil {
		return err
	}
	consumer, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Second})
	if err != nil {
		return err
	}
	taken, err := consumer.Consume(func(m jetstream.Msg) {
		meta, err := m.Metadata()
		if err == nil { // the same order may come twice
			_, err = db.Exec(ctx, "insert into orders values ($1, $2) on conflict do nothing", meta.Sequence.Stream, string(m.Data()))
		}
		if err != nil {
			log.Printf("shop: order: %v", err)
			return // it comes again
		}
		_ = m.Ack() // or it comes again
	})
	if err != nil {
		return err
	}
	defer taken.Stop()
	log.Print("shop: working")
	<-ctx.Done()
	return nil
}

// ask wants an answer that says well.
func ask(r *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(r.Body, 1<<10))
		return fmt.Errorf("%s: %s", r.Status, text)
	}
	return nil
}
