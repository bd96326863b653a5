package serve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/door"
	"kogge.example/agent/registry"
	"kogge.example/update/fleet"
)

// Registries are the node's settings of image registries. workload.RegistryStore fits.
type Registries interface {
	Read() (registry.Registries, error)
	Change(edit func(registry.Registries) error) error
	Forget() error
}

// registryService answers for the settings of registries.
type registryService struct{ registries Registries }

// checkLimit bounds the question to a registry whether it takes a password.
const checkLimit = 15 * time.Second

// What a registry's name and password have at most, in bytes. Some registries take
// whole documents as passwords.
const (
	maxUser     = 1 << 10
	maxPassword = 64 << 10
)

func (s *registryService) ListRegistries(context.Context, *connect.Request[apiv1.ListRegistriesRequest]) (*connect.Response[apiv1.ListRegistriesResponse], error) {
	all, err := s.registries.Read()
	if err != nil {
		return nil, registryError(err)
	}
	answer := &apiv1.ListRegistriesResponse{}
	for _, host := range slices.Sorted(maps.Keys(all)) {
		one := all[host]
		shown := &apiv1.Registry{Host: host, User: one.User, Ca: one.CA, Insecure: one.Insecure}
		for _, m := range one.Mirrors {
			shown.Mirrors = append(shown.Mirrors, &apiv1.Mirror{Url: m.URL, Insecure: m.Insecure})
		}
		answer.Registries = append(answer.Registries, shown)
	}
	return connect.NewResponse(answer), nil
}

func (s *registryService) Login(ctx context.Context, r *connect.Request[apiv1.LoginRequest]) (*connect.Response[apiv1.LoginResponse], error) {
	host, err := registry.Name(r.Msg.Host)
	switch {
	case err != nil:
	case r.Msg.User == "" || r.Msg.Password == "":
		err = errors.New("a login needs a user and a password")
	case len(r.Msg.User) > maxUser || len(r.Msg.Password) > maxPassword:
		err = fmt.Errorf("the user is longer than %d bytes, or the password is longer than %d", maxUser, maxPassword)
	case strings.ContainsAny(r.Msg.User, ":\r\n\x00"):
		err = errors.New("the user name contains a colon or a newline, which no registry accepts")
	}
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	all, err := s.registries.Read()
	if err != nil {
		return nil, registryError(err)
	}
	before := all[host].Access
	access := before
	access.User, access.Password = r.Msg.User, registry.Secret(r.Msg.Password)
	if !r.Msg.Unchecked {
		ctx, cancel := context.WithTimeout(ctx, checkLimit)
		defer cancel()
		if err := access.Check(ctx, host); err != nil {
			return nil, checkError(host, err)
		}
	}
	err = s.registries.Change(func(all registry.Registries) error {
		one := all[host]
		if one.Access != before {
			return connect.NewError(connect.CodeAborted, fmt.Errorf("the settings of %s were changed by somebody else: try again", host))
		}
		one.Access = access
		all[host] = one
		return nil
	})
	if err != nil {
		return nil, registryError(err)
	}
	return connect.NewResponse(&apiv1.LoginResponse{}), nil
}

// checkError says whether the registry refused, or could not be asked.
func checkError(host string, err error) error {
	code := connect.CodeFailedPrecondition
	switch {
	case errors.Is(err, registry.ErrDenied):
		code = connect.CodePermissionDenied
	case errors.Is(err, registry.ErrSettings):
		code = connect.CodeInvalidArgument
	}
	return connect.NewError(code, fmt.Errorf("log in to %s: %w", host, err))
}

func (s *registryService) Logout(_ context.Context, r *connect.Request[apiv1.LogoutRequest]) (*connect.Response[apiv1.LogoutResponse], error) {
	if r.Msg.All {
		if r.Msg.Host != "" {
			return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("name one registry or all of them, not both"))
		}
		if err := s.registries.Forget(); err != nil {
			return nil, registryError(err)
		}
		return connect.NewResponse(&apiv1.LogoutResponse{}), nil
	}
	host, err := registry.Name(r.Msg.Host)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	err = s.registries.Change(func(all registry.Registries) error {
		one := all[host]
		if one.User == "" {
			return connect.NewError(connect.CodeNotFound, fmt.Errorf("nobody is logged in to %s here", host))
		}
		one.User, one.Password = "", ""
		keep(all, host, one)
		return nil
	})
	if err != nil {
		return nil, registryError(err)
	}
	return connect.NewResponse(&apiv1.LogoutResponse{}), nil
}

// keep puts a registry among all, unless nothing is known of it.
func keep(all registry.Registries, host string, one registry.Registry) {
	if one.Access == (registry.Access{}) && len(one.Mirrors) == 0 {
		delete(all, host)
		return
	}
	all[host] = one
}

func (s *registryService) SetRegistry(ctx context.Context, r *connect.Request[apiv1.SetRegistryRequest]) (*connect.Response[apiv1.SetRegistryResponse], error) {
	host, err := registry.Name(r.Msg.Host)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	within := r.Msg.GetInsecure() && registry.Loopback(host)
	for _, m := range r.Msg.AddMirrors {
		within = within || registry.Mirror{URL: m.Url}.Inside()
	}
	if caller := door.Caller(ctx); within && !caller.Role.AtLeast(fleet.RoleAdmin) {
		// What listens there alone believes whoever comes from there.
		return nil, api.Refuse(connect.CodePermissionDenied, apiv1.Reason_REASON_ROLE, fmt.Errorf("%s has the role %s: plain HTTP to the node itself needs admin", caller.Name, caller.Role))
	}
	err = s.registries.Change(func(all registry.Registries) error {
		one, err := set(host, all[host], r.Msg)
		if err != nil {
			return err
		}
		keep(all, host, one)
		return nil
	})
	if err != nil {
		return nil, registryError(err)
	}
	return connect.NewResponse(&apiv1.SetRegistryResponse{}), nil
}

// set makes what r asks for of a registry.
func set(host string, one registry.Registry, r *apiv1.SetRegistryRequest) (registry.Registry, error) {
	before := one.Access
	if r.Ca != nil {
		one.CA = *r.Ca
	}
	if r.Insecure != nil {
		one.Insecure = *r.Insecure
	}
	if one.Access != before && one.User != "" {
		// Whoever may say how a server proves itself could else read what it is sent.
		return one, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s is logged in to %s: its settings cannot change while a password is stored, so log out first", one.User, host))
	}
	one.Mirrors = slices.Clone(one.Mirrors)
	known := func(url string) int {
		return slices.IndexFunc(one.Mirrors, func(m registry.Mirror) bool { return m.URL == url })
	}
	for _, url := range r.RemoveMirrors {
		i := known(url)
		if i < 0 {
			return one, connect.NewError(connect.CodeNotFound, fmt.Errorf("%s has no mirror %q here", host, url))
		}
		one.Mirrors = slices.Delete(one.Mirrors, i, i+1)
	}
	for _, m := range r.AddMirrors {
		mirror := registry.Mirror{URL: m.Url, Access: registry.Access{Insecure: m.Insecure}}
		if i := known(m.Url); i >= 0 {
			one.Mirrors[i] = mirror
		} else {
			one.Mirrors = append(one.Mirrors, mirror)
		}
	}
	return one, nil
}

// registryError says whose mistake it is.
func registryError(err error) error {
	var said *connect.Error
	switch {
	case errors.As(err, &said):
		return said
	case errors.Is(err, registry.ErrLocked):
		return api.Refuse(connect.CodeFailedPrecondition, apiv1.Reason_REASON_REGISTRIES_LOCKED, err)
	case errors.Is(err, registry.ErrSettings):
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}
