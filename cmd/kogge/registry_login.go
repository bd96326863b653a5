package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func registryLoginCommand() *cobra.Command {
	var t target
	var user string
	var stdin, unchecked bool
	cmd := &cobra.Command{
		Use: "login HOST", Short: "Store a password for a registry on a node", Args: exactly("HOST"),
		Long: `Stores a password, or a token, for a registry on a node.

The node tries the password with the registry, and keeps it encrypted on STATE. This
computer does not keep it. Nobody can read it back: pulls use it, and kogge registry
logout deletes it. HOST is the first part of an image's name; use docker.io for Docker
Hub, whose images have no such part.`,
		Example: "  kogge registry login registry.example -u ada\n  pass registry | kogge registry login registry.example -u ada --password-stdin",
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPassword(cmd, user, args[0], stdin)
			if err != nil {
				return err
			}
			return t.asks(cmd, nil, func(ctx context.Context, c *api.Client) error {
				_, err := c.Login(ctx, connect.NewRequest(&apiv1.LoginRequest{Host: args[0], User: user, Password: password, Unchecked: unchecked}))
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "node %s keeps a password of %s for %s, encrypted on its STATE\n", t.node, user, args[0])
				}
				if connect.CodeOf(err) == connect.CodeFailedPrecondition && lockedHint(err) == err {
					return hinted{err, "can the node reach the registry? --no-check keeps the password without trying it"}
				}
				return lockedHint(err)
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().StringVarP(&user, "username", "u", "", "user `NAME` at the registry")
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input (default: ask on the terminal)")
	cmd.Flags().BoolVar(&unchecked, "no-check", false, "do not try the password with the registry")
	return cmd
}

// readPassword reads a password from where the flags say; never from an argument,
// which every process of this computer could read.
func readPassword(cmd *cobra.Command, user, host string, stdin bool) (string, error) {
	if user == "" {
		return "", hinted{errors.New("registry login: no user name"), "add: --username NAME"}
	}
	if !stdin {
		password, err := askSecret(cmd.Context(), fmt.Sprintf("password of %s for %s: ", user, host))
		if errors.Is(err, errNoTerminal) {
			return "", hinted{fmt.Errorf("registry login: %w", err), "give the password on standard input: --password-stdin"}
		}
		if err == nil && password == "" {
			err = errors.New("the password is empty")
		}
		if err != nil {
			return "", fmt.Errorf("registry login: %w", err)
		}
		return password, nil
	}
	text, err := io.ReadAll(io.LimitReader(patient{cmd.Context(), cmd.InOrStdin()}, maxPassword+2))
	if err != nil {
		return "", fmt.Errorf("registry login: %w", err)
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if len(text) == 0 || len(text) > maxPassword {
		return "", fmt.Errorf("registry login: the password on standard input is empty or too long: %d bytes", len(text))
	}
	return string(text), nil
}

func registryLogoutCommand() *cobra.Command {
	var t target
	var all bool
	cmd := &cobra.Command{
		Use: "logout HOST", Short: "Delete a node's password for a registry",
		Long:    "Deletes a node's password for a registry. With --all it deletes all registry settings: passwords,\ncertificate authorities and mirrors.",
		Example: "  kogge registry logout registry.example",
		Args: func(cmd *cobra.Command, args []string) error {
			if all {
				return cobra.NoArgs(cmd, args)
			}
			return exactly("HOST")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, nil, func(ctx context.Context, c *api.Client) error {
				_, err := c.Logout(ctx, connect.NewRequest(&apiv1.LogoutRequest{Host: strings.Join(args, ""), All: all}))
				return lockedHint(err)
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "delete all settings of all registries")
	return cmd
}

// maxPassword is the longest password that a node takes, in bytes.
const maxPassword = 64 << 10
