package votes

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
)

// pile takes what does not begin with "bad".
type pile [][]byte

func (p *pile) Take(raw []byte) (bool, error) {
	switch {
	case bytes.HasPrefix(raw, []byte("bad")):
		return false, errors.New("not an object:\nit is\tbad")
	case slices.ContainsFunc(*p, func(has []byte) bool { return bytes.Equal(has, raw) }):
		return false, nil
	}
	*p = append(*p, bytes.Clone(raw))
	return true, nil
}

func (p *pile) All() [][]byte { return *p }

func serving(t *testing.T, docket func() Docket) apiv1connect.VoteServiceClient {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(Handler(docket))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return apiv1connect.NewVoteServiceClient(s.Client(), s.URL)
}

// all is what a node says that it has, and in how many messages.
func all(t *testing.T, c apiv1connect.VoteServiceClient) (objects [][]byte, messages int) {
	t.Helper()
	stream, err := c.Docket(t.Context(), connect.NewRequest(&apiv1.DocketRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for ; stream.Receive(); messages++ {
		objects = append(objects, stream.Msg().Objects...)
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	return objects, messages
}

// TestSubmit brings objects, of which one is none: the others are taken all the same.
func TestSubmit(t *testing.T) {
	p := &pile{}
	c := serving(t, func() Docket { return p })
	answer, err := c.Submit(t.Context(), connect.NewRequest(&apiv1.SubmitRequest{Objects: [][]byte{[]byte("one"), []byte("bad"), []byte("two"), []byte("one")}}))
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, o := range answer.Msg.Objects {
		said = append(said, map[bool]string{true: "news ", false: ""}[o.News]+o.Error)
	}
	if want := []string{"news ", "not an object: it is bad", "news ", ""}; !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
	if has, _ := all(t, c); len(has) != 2 {
		t.Errorf("the node has %q", has)
	}
	many := make([][]byte, maxObjects+1)
	if _, err := c.Submit(t.Context(), connect.NewRequest(&apiv1.SubmitRequest{Objects: many})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("%d objects: %v", len(many), err)
	}
}

// TestLargeDocket has a node with more than goes into one message, and with nothing.
func TestLargeDocket(t *testing.T) {
	p := &pile{}
	c := serving(t, func() Docket { return p })
	if has, messages := all(t, c); len(has) != 0 || messages != 1 {
		t.Errorf("of nothing it sends %d objects in %d messages", len(has), messages)
	}
	for i := range 40 {
		*p = append(*p, bytes.Repeat([]byte{byte(i)}, 50<<10))
	}
	*p = append(*p, bytes.Repeat([]byte{'x'}, 2*api.PartSize)) // larger than a message ought to be
	has, messages := all(t, c)
	if !slices.EqualFunc(has, *p, bytes.Equal) || messages != 9 {
		t.Errorf("%d objects in %d messages", len(has), messages)
	}
}

// TestNoDocket asks nodes that keep none.
func TestNoDocket(t *testing.T) {
	for _, docket := range []func() Docket{nil, func() Docket { return nil }} {
		c := serving(t, docket)
		_, err := c.Submit(t.Context(), connect.NewRequest(&apiv1.SubmitRequest{}))
		if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "this node keeps nothing") {
			t.Errorf("submit: %v", err)
		}
		stream, err := c.Docket(t.Context(), connect.NewRequest(&apiv1.DocketRequest{}))
		if err == nil && !stream.Receive() {
			err = stream.Err()
		}
		if connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("docket: %v", err)
		}
	}
}
