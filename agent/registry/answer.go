package registry

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"kogge.example/agent/tarball"
	"kogge.example/update/download"
)

// Why a pull is refused or fails for good; everything else may be better at the next
// try.
var (
	// ErrDenied means that the registry wants other credentials, or none would do.
	ErrDenied = errors.New("access denied")
	// ErrMissing means that the registry does not have the image.
	ErrMissing = errors.New("not in the registry")
	// ErrPlatform means that the image is not for this node.
	ErrPlatform = tarball.ErrPlatform
	// ErrLie means that what came is not what was announced: other bytes than the
	// digest says, more than the size says, or no image at all.
	ErrLie = errors.New("registry sent other content than it announced")
	// ErrFull means that the image does not fit beside the tenth of STATE that stays
	// free.
	ErrFull = errors.New("not enough free space")
)

// answer is what a registry said instead of sending something.
type answer struct {
	host  string
	code  int
	words string
}

func (a *answer) Error() string {
	s := fmt.Sprintf("%s answers %d %s", a.host, a.code, http.StatusText(a.code))
	if a.words != "" {
		s += ": " + a.words
	}
	return s
}

func (a *answer) Unwrap() error {
	switch a.code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrDenied
	case http.StatusNotFound:
		return ErrMissing
	}
	return nil
}

// Explain makes of an error of containerd's client one that says what the operator
// wants to know. URLs are left out: those of redirections are as good as passwords.
func Explain(err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	var web *url.Error
	switch {
	case err == nil, Final(err):
		return err
	case errors.Is(Full(err), unix.ENOSPC):
		return Full(err)
	case errors.As(err, &status):
		host := "registry"
		if u, err := url.Parse(status.RequestURL); err == nil {
			host = u.Host
		}
		return &answer{host: host, code: status.StatusCode, words: said(status.Body)}
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return fmt.Errorf("%w: the registry does not accept these credentials, or the image does not exist", ErrDenied)
	case errors.As(err, &web) && (errors.Is(err, errCircle) || errors.Is(err, errCarry)):
		return web.Err // it says who does that
	case errors.As(err, &web):
		if u, parseErr := url.Parse(web.URL); parseErr == nil {
			return fmt.Errorf("%s: %w", u.Host, web.Err)
		}
		return web.Err
	case errdefs.IsNotFound(err):
		return ErrMissing
	}
	return err
}

// Full makes of containerd's text that the disk is full an error that says so.
func Full(err error) error {
	if !strings.Contains(err.Error(), unix.ENOSPC.Error()) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrFull, unix.ENOSPC)
}

// said is what a registry's answer says, in a line: its messages, as registries and those
// that make tokens for them put them. Another one's answer is not repeated: whoever may
// name a registry could read with the node's eyes.
func said(body []byte) string {
	var known struct {
		Errors  []struct{ Code, Message string } `json:"errors"`
		Details string                           `json:"details"`
	}
	text := ""
	if json.Unmarshal(body, &known) == nil {
		var parts []string
		for _, e := range known.Errors {
			parts = append(parts, strings.TrimSpace(e.Code+" "+e.Message))
		}
		text = strings.Join(append(parts, known.Details), "; ")
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	text = strings.Trim(strings.Join(strings.Fields(text), " "), "; ")
	const most = 200
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}

// Final says whether err is one after which the same pull fails again.
func Final(err error) bool {
	for _, e := range []error{ErrDenied, ErrMissing, ErrPlatform, ErrLie, ErrFull} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Transient says whether a moment later err may be gone.
func Transient(err error) bool {
	var refused *answer
	var certificate *tls.CertificateVerificationError
	var alert tls.AlertError
	var name *net.DNSError
	var op *net.OpError
	var slow net.Error
	switch {
	case Final(err), errors.As(err, &certificate), errors.As(err, &alert), errors.Is(err, errPlain):
		return false
	case errors.As(err, &refused):
		return refused.code >= 500 || refused.code == http.StatusTooManyRequests || refused.code == http.StatusRequestTimeout
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, download.ErrStalled),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return true
	case errors.As(err, &name):
		return !name.IsNotFound
	case errors.As(err, &op):
		return true
	}
	return errors.As(err, &slow) && slow.Timeout()
}
