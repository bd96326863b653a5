package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func registryCommand() *cobra.Command {
	return group("registry", "Manage a node's registries: passwords, CAs, mirrors",
		registryListCommand(), registryLoginCommand(), registryLogoutCommand(), registrySetCommand(),
		group("mirror", "Manage the mirrors of a registry", registryMirrorCommand("add"), registryMirrorCommand("rm")))
}

func registryListCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "ls [NODE]", Short: "List a node's registry settings, but no passwords", Args: cobra.MaximumNArgs(1),
		Example: "  kogge registry ls n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.ListRegistries(ctx, connect.NewRequest(&apiv1.ListRegistriesRequest{}))
				if err != nil {
					return lockedHint(err)
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) { printRegistries(w, answer.Msg.Registries) })
			})
		},
	}
	t.register(cmd)
	return cmd
}

func printRegistries(w io.Writer, all []*apiv1.Registry) {
	tw := newTable(w)
	defer tw.Flush()
	tw.head("REGISTRY\tUSER\tTRUST\tMIRRORS")
	for _, r := range all {
		trust, user := "system", r.User
		switch {
		case r.Insecure:
			trust = "plain HTTP"
		case r.Ca != "":
			trust = "system, own CA"
		}
		if user == "" {
			user = "-"
		}
		var mirrors []string
		for _, m := range r.Mirrors {
			mirrors = append(mirrors, m.Url)
		}
		tw.row("%s\t%s\t%s\t%s\n", r.Host, user, trust, dash(mirrors))
	}
}

// lockedHint says what to do about settings that cannot be decrypted.
func lockedHint(err error) error {
	if api.ReasonOf(err) == apiv1.Reason_REASON_REGISTRIES_LOCKED {
		return hinted{err, "delete them, and log in again: kogge registry logout --all"}
	}
	return err
}

func registrySetCommand() *cobra.Command {
	var t target
	var ca string
	var noCA, insecure bool
	cmd := &cobra.Command{
		Use: "set HOST", Short: "Set which CA a registry's certificate must come from", Args: exactly("HOST"),
		Long: "Sets which certificate authorities may sign a registry's certificate, besides those of the system, or\n" +
			"that the registry uses plain HTTP. Neither can be changed while a password is stored: log out first.\n" +
			"The settings also hold for a web server with releases (kogge node update).",
		Example: "  kogge registry set registry.lan:5000 --ca ca.pem\n  kogge registry set 192.0.2.7:5000 --insecure",
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &apiv1.SetRegistryRequest{Host: args[0]}
			if cmd.Flags().Changed("insecure") {
				r.Insecure = &insecure
			}
			switch {
			case noCA && ca != "":
				return errors.New("registry set: --ca and --no-ca exclude each other")
			case noCA:
				r.Ca = new(string)
			case ca != "":
				text, err := readInput(cmd.Context(), ca, maxInput)
				if err != nil {
					return fmt.Errorf("registry set: %w", err)
				}
				pem := string(text)
				r.Ca = &pem
			case r.Insecure == nil:
				return hinted{errors.New("registry set: nothing to set"), cmd.CommandPath() + " --help lists the flags"}
			}
			return t.setRegistry(cmd, r)
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().StringVar(&ca, "ca", "", "`FILE` of certificate authorities (PEM) to trust besides the system's")
	cmd.Flags().BoolVar(&noCA, "no-ca", false, "trust only the system's certificate authorities")
	cmd.Flags().BoolVar(&insecure, "insecure", false, "use plain HTTP, which everybody on the way can read and change")
	return cmd
}

func (t *target) setRegistry(cmd *cobra.Command, r *apiv1.SetRegistryRequest) error {
	return t.asks(cmd, nil, func(ctx context.Context, c *api.Client) error {
		_, err := c.SetRegistry(ctx, connect.NewRequest(r))
		if connect.CodeOf(err) == connect.CodeNotFound {
			return hinted{err, "kogge registry ls lists them"}
		}
		return lockedHint(err)
	})
}

// registryMirrorCommand is add or rm.
func registryMirrorCommand(verb string) *cobra.Command {
	var t target
	var insecure bool
	cmd := &cobra.Command{
		Use: verb + " HOST URL", Args: exactly("HOST", "URL"),
		Short:   map[string]string{"add": "Add a mirror, to be asked before the registry", "rm": "Remove a mirror"}[verb],
		Example: "  kogge registry mirror rm registry.example https://mirror.lan:5000",
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &apiv1.SetRegistryRequest{Host: args[0]}
			if verb == "add" {
				r.AddMirrors = []*apiv1.Mirror{{Url: args[1], Insecure: insecure}}
			} else {
				r.RemoveMirrors = args[1:]
			}
			return t.setRegistry(cmd, r)
		},
	}
	t.nodeFlags(cmd)
	if verb == "add" {
		cmd.Long = `Adds a mirror. The node asks it before the registry, and after the mirrors that were
added earlier. URL is https://HOST[:PORT][/PREFIX]; PREFIX comes before the images' names
there. The node trusts a mirror like the registry: a mirror decides what a tag means. The
password and the certificate authority of a mirror are those of its host: kogge registry
login, kogge registry set.`
		cmd.Example = "  kogge registry mirror add registry.example https://mirror.lan:5000"
		cmd.Flags().BoolVar(&insecure, "insecure", false, "the URL is plain HTTP, which everybody on the way can read and change")
	}
	return cmd
}
