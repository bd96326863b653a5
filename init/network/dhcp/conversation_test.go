package dhcp

import (
	"bytes"
	"context"
	"errors"
	"log"
	"strings"
	"testing"

	"kogge.example/init/control"
)

// failing is a network where each question fails in its own way.
type failing struct {
	errs []error
	over context.CancelFunc
}

func (f *failing) Ask(context.Context, Action, *control.Lease) (*control.Lease, error) {
	if len(f.errs) == 0 {
		f.over()
		return nil, context.Canceled
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, err
}

func (f *failing) Decline(context.Context, *control.Lease) error { return nil }

// TestFailuresAreNamed: that nobody has answered at first does not keep the name of a server
// that breaks its word from the log.
func TestFailuresAreNamed(t *testing.T) {
	var out bytes.Buffer
	defer log.SetOutput(log.Writer())
	log.SetOutput(&out)
	ctx, cancel := context.WithCancel(context.Background())
	v := Converse(ctx, "dhcp", &failing{[]error{errSilent, errors.New("192.0.2.7 does not keep its offer")}, cancel}, Client{State: Selecting},
		func(context.Context, *control.Lease) {})
	v.TellCarrier(Carrier{Up: true, Plugs: 1})
	<-v.done
	for _, want := range []string{"dhcp: discover: no answer\n", "dhcp: discover: 192.0.2.7 does not keep its offer\n"} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("not once %q:\n%s", want, out.String())
		}
	}
}
