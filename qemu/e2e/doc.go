// Package e2e runs scripts that read as an operator's session: CLI calls and
// virtual machines in, pass or a kept log out. It holds tests only.
//
// The scripts are testdata/*.txt in the language of
// github.com/rogpeppe/go-internal/testscript. On top of its commands they have
//
//	kogge ARG…                      the CLI of this source tree; images are built after cd $ROOT, into $WORK
//	vm start NAME [IMAGE] [FLAG…]   starts a VM; without IMAGE the same one once more, its disk as it was left
//	vm wait [-count=N] NAME RE      waits for the Nth console line that matches RE, after the one it found last
//	vm http NAME PORT PATH RE       waits for an answer 200 from the guest's port whose body matches RE
//	vm event [-count=N] NAME EVENT  waits for the Nth event of QEMU since the start, for instance RESET or WATCHDOG
//	vm send NAME TEXT               types a line on the console
//	vm stop NAME                    presses the power button and waits for a clean end
//	vm reset NAME                   presses the reset button
//	vm kill NAME                    ends QEMU at once; what was flushed stays
//	vm cut NAME SEED                cuts the power of a VM started with -nbd; SEED decides what the disk loses
//	vm cutafter NAME N SEED         the same when the disk has taken N writes in all
//	vm save NAME FILE               writes the disk of a cut VM to FILE, for tools that judge file systems
//
// The flags of vm start are those of [qemu.Machine]: -seed, -join, -port (may be
// repeated), -memory, -cpus, -disk MiB, -bus, -network, -rtc, -ready RE; -nbd puts
// the disk behind a server that can be cut; -bios boots without UEFI, and
// -kernel, -initrd and -cmdline (a file) without either. Each forward is a
// variable: $n1_80 is the host's address of port 80 of n1.
//
// Every wait is bounded by KOGGE_E2E_LIMIT (default 5m). A script that fails
// leaves the folders of its VMs, with console logs, and prints where they are and
// the command that runs it again. With KOGGE_E2E_KEEP set they are always left.
package e2e
