// Package registry is the way to the registries that images and releases lie in: what the
// node knows of them (addresses, mirrors, authorities, passwords), how they are asked, and
// what their answers mean.
//
// In come names of images as people write them, and settings from STATE; out go bounded
// connections and errors in words that no registry can bend. Package engine pulls images
// over them, package install releases. What a tag means, and whether its bytes are to be
// believed, is decided there.
package registry

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
)

// Registries are the node's settings of image registries, by the name that an image
// has before its first slash ("docker.io" for images that have none). A registry that
// is not among them is asked by HTTPS, with the system's certificate authorities and
// without a name or password. The node's own loopback is no exception, for its services
// believe whoever comes from there.
type Registries map[string]Registry

// Registry is how the images of one registry are had.
type Registry struct {
	Access
	// Mirrors are asked first, in this order, and the registry itself last. A mirror
	// is believed as the registry is: it may say what a tag means.
	Mirrors []Mirror `json:"mirrors,omitempty"`
}

// Mirror is another place for the images of a registry. One at an https URL that says
// nothing about access is spoken to as the registry of its host is.
type Mirror struct {
	// URL is https://HOST[:PORT][/PREFIX]; PREFIX comes before the images' names.
	URL string `json:"url"`
	Access
}

// Access is how a server is spoken to.
type Access struct {
	// CA are certificate authorities (PEM) that are believed beside the system's.
	CA string `json:"ca,omitempty"`
	// User and Password are for Basic authentication, or are exchanged for a token
	// where the server wants that.
	User     string `json:"user,omitempty"`
	Password Secret `json:"password,omitempty"`
	// Insecure is plain HTTP, readable and changeable by everybody on the way. It
	// excludes CA, and a password.
	Insecure bool `json:"insecure,omitempty"`
}

// Secret is text that prints and marshals as a placeholder.
type Secret string

// hidden is what is shown of a secret.
const hidden = "(secret)"

// String is the placeholder, or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is String, so that %#v shows no secret either.
func (s Secret) GoString() string { return s.String() }

// MarshalJSON is String: what was marshalled has no secret any more.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// maxRegistries is the size of the longest file of settings, in bytes: a hundred
// registries with their authorities.
const maxRegistries = 1 << 20

// Parse reads settings as they lie in their file:
//
//	{"registry.example": {"user": "n07", "password": "…", "ca": "-----BEGIN …",
//	                      "mirrors": [{"url": "https://mirror.example:5000"}]}}
//
// An error names the registry and never a password.
func Parse(data []byte) (Registries, error) {
	if len(data) > maxRegistries {
		return nil, fmt.Errorf("longer than %d bytes", maxRegistries)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var r Registries
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more text after the settings")
	}
	for name, registry := range r {
		if err := registry.check(name); err != nil {
			return nil, fmt.Errorf("registry %q: %w", name, err)
		}
	}
	return r, nil
}

func (r Registry) check(name string) error {
	if u, err := url.Parse("//" + name); err != nil || u.Host != name || u.Hostname() == "" {
		return errors.New("expected HOST or HOST:PORT")
	}
	if err := r.Access.check(); err != nil {
		return err
	}
	for i, m := range r.Mirrors {
		if _, err := m.endpoint(); err != nil {
			return fmt.Errorf("mirror %d: %w", i+1, err)
		}
	}
	return nil
}

func (a Access) check() error {
	switch {
	case (a.User == "") != (a.Password == ""):
		return errors.New("set both user and password, or neither")
	case a.Insecure && a.CA != "":
		return errors.New("insecure means plain HTTP, which has no ca")
	case a.Insecure && a.User != "":
		return errors.New("insecure means plain HTTP, which would send the password in the clear")
	}
	_, err := a.authorities()
	return err
}

// authorities are those that certificates are checked against; nil: the system's.
func (a Access) authorities() (*x509.CertPool, error) {
	if a.CA == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("certificate authorities of the system: %w", err)
	}
	if !pool.AppendCertsFromPEM([]byte(a.CA)) {
		return nil, errors.New("ca has no certificate (PEM)")
	}
	return pool, nil
}

// endpoint is a server that has images.
type endpoint struct {
	scheme, host string
	path         string // of the API: /v2, with the prefix of a mirror
	Access              // exported, so that printing an endpoint finds the methods of its Secret
}

func (m Mirror) endpoint() (endpoint, error) {
	if err := m.Access.check(); err != nil {
		return endpoint{}, err
	}
	u, err := url.Parse(m.URL)
	switch {
	case err != nil:
		return endpoint{}, errors.New("url cannot be read") // its text may hold a password
	case u.User != nil:
		return endpoint{}, errors.New("url holds a user: set it in the field user")
	case u.RawQuery != "" || u.Fragment != "":
		return endpoint{}, errors.New("expected a url https://HOST[:PORT][/PREFIX], with nothing behind it") // such as a token
	case u.Hostname() == "":
		return endpoint{}, fmt.Errorf("url %q is not https://HOST[:PORT][/PREFIX]", m.URL)
	case u.Scheme == "http" && !m.Insecure && !Loopback(u.Host): // as files of before have it
		return endpoint{}, fmt.Errorf("url %q is plain HTTP, which needs insecure", m.URL)
	case u.Scheme == "https" && m.Insecure:
		return endpoint{}, fmt.Errorf("url %q is HTTPS, and insecure means plain HTTP", m.URL)
	case u.Scheme != "http" && u.Scheme != "https":
		return endpoint{}, fmt.Errorf("url %q is not https://HOST[:PORT][/PREFIX]", m.URL)
	}
	return endpoint{scheme: u.Scheme, host: u.Host, path: "/v2" + strings.TrimRight(u.Path, "/"), Access: m.Access}, nil
}

// endpoints are the servers that have the images of the registry host, in the order
// in which they are asked.
func (r Registries) endpoints(host string, mirrors bool) ([]endpoint, error) {
	var all []endpoint
	registry := r[host]
	if mirrors {
		for _, m := range registry.Mirrors {
			e, err := m.endpoint()
			if err != nil {
				return nil, fmt.Errorf("mirror of %s: %w", host, err)
			}
			if own := r[e.host]; e.scheme == "https" && e.Access == (Access{}) && !own.Insecure {
				e.Access = own.Access
			}
			all = append(all, e)
		}
	}
	own := endpoint{scheme: "https", host: host, path: "/v2", Access: registry.Access}
	if own.Insecure {
		own.scheme = "http"
	}
	if host == "docker.io" {
		own.host = "registry-1.docker.io" // the name of the registry has only a web site
	}
	return append(all, own), nil
}

// Loopback says whether a host, with or without port, is this node by its name.
func Loopback(host string) bool {
	u, err := url.Parse("//" + host)
	if err != nil {
		return false
	}
	if u.Hostname() == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && inside(addr)
}

// inside says whether an address leads to what listens on this node alone.
func inside(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsLoopback() || addr.IsUnspecified()
}

// Inside says whether a mirror is this node by its name, and spoken to by plain HTTP.
func (m Mirror) Inside() bool {
	u, err := url.Parse(m.URL)
	return err == nil && u.Scheme == "http" && Loopback(u.Host)
}
