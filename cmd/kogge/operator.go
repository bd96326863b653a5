package main

import (
	"strings"

	"github.com/spf13/cobra"
)

func operatorCommand() *cobra.Command {
	cmd := group("operator", "Invite, sign and revoke the operators of a fleet",
		operatorInviteCommand(), operatorJoinCommand(), operatorSignCommand(), operatorInstallCommand(),
		operatorRenewCommand(), operatorListCommand(), operatorRevokeCommand())
	cmd.Long = `Lets other people operate a fleet. Each makes a key on their own computer, where it stays. Three files go
between you and them, by e-mail if you like:

  you    kogge operator invite bob --role operator   send dev-bob.invite to bob
  bob    kogge operator join dev-bob.invite          send dev-bob.request back
  you    kogge operator sign dev-bob.request         compare the key with bob,
                                                     send dev-bob.certificate
  bob    kogge operator install dev-bob.certificate  done

A certificate is good for a year. To get the next one, start with kogge operator renew, which writes a request.`
	return cmd
}

// minute is how moments are told that are days away.
const minute = "2006-01-02 15:04"

// fingerprint is as much of a key's or a fleet's id as people compare: 128 bits, of
// which nobody makes a second one, in groups to read aloud.
func fingerprint(id string) string {
	var groups []string
	for i := 0; i < 32; i += 4 {
		groups = append(groups, id[i:i+4])
	}
	return strings.Join(groups, " ")
}
