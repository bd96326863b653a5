// Package e2e runs scripts that read as an operator's session: CLI calls and
// virtual machines in, pass or a kept log out. It holds tests only.
//
// The scripts are testdata/*.txt, the short set, which is part of every go test,
// and those in the folders of testdata/long. KOGGE_E2E=all selects both, the long forms
// of [TestGrowth], [TestUpdateCuts] and [TestUBootDecisions], all cells of [TestMatrix],
// and [TestTrial]: that takes hours. `make e2e` does it in parts of an hour at most, which
// are listed in .ci/e2e.txt. With -short nothing is started. No script is ever skipped: it
// is in the selected set or it is not. They are in the language of
// github.com/rogpeppe/go-internal/testscript. On top of its commands they have
//
//	kogge ARG…                      the CLI of this source tree; images are built after cd $ROOT, into $WORK
//	vm start NAME [IMAGE] [FLAG…]   starts a VM; without IMAGE the same one once more, its disk as it was left
//	vm wait [-count N] NAME RE      waits for the Nth console line that matches RE, after the one it found last
//	vm http NAME PORT PATH RE       waits for an answer 200 from the guest's port whose body matches RE
//	vm event [-count N] NAME EVENT  waits for the Nth event of QEMU since the start, for instance RESET or WATCHDOG
//	vm atmost NAME EVENT N          fails when the event has come more than N times since the start
//	vm send NAME TEXT               types a line on the console
//	vm stop NAME                    presses the power button and waits for a clean end
//	vm reset NAME                   presses the reset button
//	vm kill NAME                    ends QEMU at once; what was flushed stays
//	vm unplug NAME CARD             pulls a network cable out: eth0 leads to this machine, eth1 to the VM's private
//	vm plug NAME CARD               network; and puts it in again
//
// Fleets of several VMs:
//
//	fleet NAME N [FLAG…]            creates a fleet for trying things out, boots n1 to nN with the flags, which are those
//	                                of vm start, adopts them and founds the fleet with those that begin with --, as
//	                                form.txt does it by hand; waits until all is well
//	await RE kogge ARG…             asks the CLI until its output matches RE; a group (?P<X>…) of RE becomes $X
//	! await RE kogge ARG…           the same until the output does not match
//	decide OPERATOR NODE            has the fleet decide that OPERATOR is one, a reader: the seats of all VMs sign, with
//	                                the keys that lie on their disks, and NODE takes the record. The VMs need -test
//	thief NAME PROTOCOL NODE [ARG]  somebody has stolen the key of the node CA from the fleet's folder. He makes himself a
//	                                certificate for a node NAME with a TLS key of his own, and calls NODE: api METHOD,
//	                                gossip or gateway with a word that he has made or with that of another SEAT, enrol
//	                                as a node that is in or with the record of a token in JOINFILE, or etcd. What he
//	                                gets is the output; it fails if that is nothing. With -operator NAME is an
//	                                operator, and with -own the VM of that name, with what lies on its disk
//
// A VM whose disk is behind a server that loses its power (vm start -nbd):
//
//	vm cut NAME SEED                cuts the power; SEED decides what the disk loses
//	vm cutafter NAME N SEED         the same when the disk has taken N writes in all
//	vm save NAME FILE               writes the disk of a cut VM to FILE, for tools that judge file systems
//	vm fsck NAME                    has e2fsck judge STATE as the cut left it: preening is enough, then all is clean
//
// A VM with an image for tests and a second serial port (vm start -test), at which
// init/testport.go answers:
//
//	vm port [-signal N] NAME OP [ARG…]   sends a command once the node listens; its answer is the output
//	vm portwait NAME RE OP [ARG…]        asks again until the answer matches RE
//
// What people run:
//
//	programs TAG NAME…              writes NAME.tar, an image kogge.local/NAME:TAG as docker save has it, for each of
//	                                caddy, nats, shop and postgres; $SHOP is the program shop for this machine
//
// Clients of a container:
//
//	vm poll NAME PORT               asks again and again in the background, until
//	vm polled NAME N                has seen N more answers; a failed request or a restarted container is an error
//	vm record NAME PORT             has the recorder write one record after the other, until the VM ends
//	vm recorded NAME N              waits until N records of this life are answered for
//	vm records NAME PORT            compares what is there with what was answered for in all lives
//
// Disks at rest:
//
//	disk guids IMAGE                lists the names of disk and partitions
//	disk boot IMAGE                 writes kernel, initrd and cmdline of slot A into the current folder
//	disk damage IMAGE OUT WHAT      makes OUT, an overlay with one sector of slot A destroyed: the top of the
//	                                verity tree (tree), or the one of the root file system that has the text
//	                                WHAT; or with all of STATE destroyed (state)
//	disk reset IMAGE OUT            makes OUT, a copy that asks on its boot partition for a new STATE
//	disk trial IMAGE OUT            makes OUT, a copy of an image for U-Boot whose slot B is armed with a kernel
//	                                that resets the machine
//
// The flags of vm start are those of [qemu.Machine]: -seed, -join, -port (may be
// repeated), -memory, -cpus, -disk MiB, -bus, -network, -nic, -noserial, -rtc,
// -ready RE; -further IMAGE adds a disk and -stick IMAGE a USB stick, -nbd puts the first one behind a server
// that can be cut, -test adds the second serial port; -board BOARD is the machine and
// the firmware of a board other than qemu-x86_64; -bios boots without UEFI, and
// -kernel, -initrd and -cmdline (a file) without either. A VM that is started once
// more takes -seed, -join and -rtc. Each forward is a variable: $n1_80 is the host's
// address of port 80 of n1, and $n1_dir the folder of its disks and logs. That of the API
// is the same in all lives of a VM.
//
// The images $BASE (runs the example, with the node.yaml $EXAMPLE_YAML on its boot
// partition) and $RECORDER (runs the recorder) are for the board qemu-x86_64, have
// the test port and are built once per run. $EXAMPLE_TAR is the example container,
// $EXAMPLE_ARM64_TAR the same for arm64, $PROBER_TAR the one that tries what is forbidden,
// $HOG_TAR the one that takes all it can get.
//
// Every wait is bounded by KOGGE_E2E_LIMIT (default 5m). A script that fails
// leaves the folders of its VMs, with console logs, and prints where they are and
// the command that runs it again. With KOGGE_E2E_KEEP set they are always left.
package e2e
