package main

const firstStepsPage = `
To see a node without a machine for it, in the source tree:

  make run                                      # builds an image, boots it in QEMU, makes fleet dev

and in a second terminal:

  kogge node status                             # how it is
  kogge ps                                      # what it runs
  kogge logs -f example                         # what that says, until Ctrl-C

For a machine of your own, make a fleet, an image, and a file that lets the node into the fleet:

  export KOGGE_FLEET=hanse                      # beside dev, that make run has made
  kogge fleet create hanse
  kogge fleet token hanse --node n1             # writes join.yaml
  kogge release keys create                     # before the image: a node installs what they sign
  kogge image build --board pc-x86_64 -o kogge.img
  kogge image seed kogge.img --join join.yaml
  kogge image write kogge.img /dev/sdX          # the card, stick or disk to boot from

Boot it, look for it on your network (its screen shows its address, too), and take it into the fleet:

  kogge node find
  kogge node adopt 192.0.2.7                    # or its name: kogge-3f2a9c.local
  kogge node status

Give it work:

  kogge apply --check -f compose.yaml           # what would be done, warned of and refused
  kogge apply -f compose.yaml
  kogge ps

Then: kogge help compose, kogge help contexts, kogge help roles.
`

const composePage = `
A Compose file becomes a project of one node: kogge apply sends it, and waits until its containers run.
The project is called by --project, by the file's name:, or by the folder that the file is in.

  kogge apply -f compose.yaml                   # new, replaced and unchanged containers
  kogge apply --check -f compose.yaml           # only says what would be done; needs no node
  kogge projects                                # which there are
  kogge rm shop                                 # takes its containers away; its volumes stay

Applying a file again replaces only what changed. What is in the file no more goes; volumes stay. What a
node runs it also runs after a reboot, with nobody to ask.

Several -f are merged, the later over the earlier. Variables come from the environment, then from
--env-file, or else from .env beside the first file. --profile NAME adds the services of a profile.

Nothing is ignored in silence: what a node does not do is refused with its line, and what means nothing on
a node is warned of. Every key of the Compose specification has its row in the source tree, in
agent/compose/README.md.

Images are those that the node has (kogge images ls); one that it lacks it pulls from its registry. Without
a network, bring them along:

  kogge images load web.tar                     # what docker save or podman save wrote
`

const contextsPage = `
A command is for one node of one fleet. Where there is only one, nothing needs to be said. Otherwise:

  kogge ps --fleet hanse --node n1              # for one command

  export KOGGE_FLEET=hanse KOGGE_NODE=n1        # for all that follow in this shell

A flag goes before the environment. Commands that end a node, or change its release, want its name in any
case, as an argument:

  kogge node reboot n1

What there is to choose from:

  kogge fleet list                              # the fleets that this computer knows
  kogge node list                               # the nodes of the fleet, with their addresses

With completion (kogge help completion) the Tab key offers them.
`

const rolesPage = `
Each operator of a fleet has a key, a certificate for it that is good for a year, and a role:

  reader      sees how things are: status, logs, containers, images, slots, metrics
  operator    also changes what runs: applies, runs commands, loads images, sets registries, reboots
  admin       also sees and changes the settings, installs releases, resets nodes, invites others

Who makes a fleet is its first admin, and signs the others:

  kogge operator invite bob --role operator     # the beginning of three files between you and bob
  kogge operator list                           # who was signed, until when
  kogge operator revoke bob                     # ends it on every node that can be reached

Certificates renew by themselves where the operator CA's key lies open, otherwise by kogge fleet renew,
or kogge operator renew on the computer of somebody who was invited. It does not matter how long one was
away. A node's certificate renews whenever an admin who has the node CA's key calls the node and little of
its year is left, or nothing: kogge node list shows until when each is good, kogge node renew --all does not
wait for that.
`

const filesPage = `
Each fleet has a folder of its own below ~/.config/kogge, for you alone (0700):

  genesis.json                  how the fleet began; public
  operator.crt, operator.key    your certificate and key, for curl --cert too
  operator-ca.crt, node-ca.crt  the certificates of the two CAs; public
  operator-ca.key[.age]         signs operators
  node-ca.key                   signs nodes
  owner-1.key[.age]             one of the three owner keys
  recovery-2.txt, -3.txt        the two others: print them, keep them in two places, delete them
  tokens.json                   which join.yaml were given out
  operators.json                whom the operator CA signed, and who was revoked
  invitations.json              who was invited
  nodes.json                    the nodes that this computer adopted, and their addresses

What ends in .age is encrypted under your passphrase. Who was invited has only the first three lines and
the nodes. Back the folder up like any other secret.

The keys that make releases have a folder for each set, ~/.config/kogge/release/NAME:

  N.root.json                   which keys count, every version since the first; public
  root-N.key[.age], .pub        say which keys count: put them away, each on a medium of its own
  targets-N.key[.age], .pub     sign releases

Packages, programs and virtual machines are kept below ~/.cache/kogge, and may be deleted while no VM runs.

  KOGGE_CONFIG     the folder of the fleets, instead of ~/.config/kogge
  KOGGE_CACHE      the folder of what can be made again, instead of ~/.cache/kogge
  KOGGE_MIRROR     the Debian mirror, instead of the one that apt uses
  KOGGE_KEYRING    the keys of that mirror
`

const jsonPage = `
Every command that prints a table prints it for programs with --json:

  kogge ps --json
  kogge node status --json
  kogge fleet list --json

Field names stay as they are; new ones may come. A list is there when it is empty, and never null. Times
are RFC 3339 in UTC. What a node answers is protobuf's JSON, the same that curl gets from its API: numbers
of 64 bits are strings.

Errors go to standard error, in words, with or without --json. Nothing that kogge prints has colours.
`

const exitCodesPage = `
  0    it is done
  1    it is not done: standard error says why ("kogge: …") and, where something helps, what
       to do ("kogge: hint: …")
  2    the command line is wrong: no such command, flag or number of arguments; nothing was done

kogge apply waits until the containers run and exits with 1 if one does not. With --check it exits with 1
if anything in the file is refused; warnings leave it at 0. With --no-wait, 0 means that the node has taken
the order.

kogge exec exits with the code of the command that it runs: 128 and a signal's number where one ended it,
126 if it cannot be run, 127 if the container has none of that name, 125 if kogge itself fails before.

Ctrl-C ends a command with 1, or with 0 where that is how one leaves: logs -f, vm run.
`
