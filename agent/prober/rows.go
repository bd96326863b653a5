package main

import (
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

var identity = group{"what it is", []attempt{
	{name: "capabilities, bounding set", try: field("CapBnd")},
	{name: "capabilities, effective", try: field("CapEff")},
	{name: "capabilities, ambient", try: field("CapAmb")},
	{name: "capabilities, by name", try: capabilities},
	{name: "its root, on the node", try: rootThere},
	{name: "no new privileges", try: field("NoNewPrivs")},
	{name: "seccomp mode", try: field("Seccomp")},
	{name: "user 1000 runs a program that is set-uid root", try: setuid},
	{name: "its place among those killed for memory", try: line("/proc/self/oom_score_adj")},
	{name: "lower the own oom_score_adj", try: write("/proc/self/oom_score_adj", "-500")},
	{name: "raise the own oom_score_adj", try: write("/proc/self/oom_score_adj", "500"), why: "only worse for itself"},
	{name: "a higher priority", try: func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -10) }},
	{name: "a real-time priority", try: realtime},
	{name: "a higher limit of open files", try: func() error {
		return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 24, Max: 1 << 24})
	}},
}}

var namespaces = group{"namespaces", []attempt{
	{name: "setns: mount namespace of process 1", try: setns("mnt")},
	{name: "setns: network namespace of process 1", try: setns("net")},
	{name: "setns: PID namespace of process 1", try: setns("pid")},
	{name: "setns: user namespace of process 1", try: setns("user")},
	{name: "unshare: user namespace", try: unshare(unix.CLONE_NEWUSER)},
	{name: "unshare: mount namespace", try: unshare(unix.CLONE_NEWNS)},
	{name: "unshare: network namespace", try: unshare(unix.CLONE_NEWNET)},
	{name: "unshare: cgroup namespace", try: unshare(unix.CLONE_NEWCGROUP)},
	{name: "clone: a process in a user namespace", try: clone(unix.CLONE_NEWUSER)},
	{name: "clone: a process in a PID namespace", try: clone(unix.CLONE_NEWPID)},
	{name: "clone3: not filtered by flags, so not at all", try: call(unix.SYS_CLONE3)},
	{name: "sethostname", try: func() error { return unix.Sethostname([]byte("node")) }},
}}

var mounts = group{"mounts", []attempt{
	{name: "mount a tmpfs", try: func() error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") }},
	{name: "mount /proc anew", try: func() error { return unix.Mount("proc", "/proc", "proc", 0, "") }},
	{name: "bind / elsewhere", try: func() error { return unix.Mount("/", "/tmp", "", unix.MS_BIND, "") }},
	{name: "remount /proc/sys for writing", try: func() error { return unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "") }},
	{name: "remount /etc/hosts for writing", try: func() error { return unix.Mount("", "/etc/hosts", "", unix.MS_REMOUNT|unix.MS_BIND, "") }},
	{name: "unmount what masks /proc/keys", try: func() error { return unix.Unmount("/proc/keys", unix.MNT_DETACH) }},
	{name: "pivot_root", try: func() error { return unix.PivotRoot("/", "/") }},
	{name: "open_tree", try: func() error { return closed(unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE)) }},
	{name: "fsopen", try: func() error { return closed(unix.Fsopen("tmpfs", 0)) }},
	{name: "move_mount", try: func() error { return unix.MoveMount(unix.AT_FDCWD, "/dev/shm", unix.AT_FDCWD, "/tmp", 0) }},
	{name: "leave by the chroot trick", try: chroot},
	{name: "what is mounted", try: mounted},
}}

var devices = group{"devices", []attempt{
	{name: "make a node for a disk (8:0)", try: node(unix.S_IFBLK, 8, 0, "/sda"), why: "the node by itself opens nothing, see below"},
	{name: "read that disk", try: open("/sda", os.O_RDONLY)},
	{name: "write that disk", try: open("/sda", os.O_WRONLY)},
	{name: "make a node for a disk in a volume", try: node(unix.S_IFBLK, 8, 0, "/data/sda"), why: "the volume is mounted nodev"},
	{name: "read that disk", try: open("/data/sda", os.O_RDONLY)},
	{name: "read the memory (1:1, /dev/mem)", try: opened(unix.S_IFCHR, 1, 1)},
	{name: "read the kernel's memory (1:2, /dev/kmem)", try: opened(unix.S_IFCHR, 1, 2)},
	{name: "read ports (1:4, /dev/port)", try: opened(unix.S_IFCHR, 1, 4)},
	{name: "read the kernel's log (1:11, /dev/kmsg)", try: opened(unix.S_IFCHR, 1, 11)},
	{name: "open the console of the node (5:1)", try: opened(unix.S_IFCHR, 5, 1)},
	{name: "open the watchdog (10:130)", try: opened(unix.S_IFCHR, 10, 130)},
	{name: "open the device mapper (10:236)", try: opened(unix.S_IFCHR, 10, 236)},
	{name: "open fuse (10:229)", try: opened(unix.S_IFCHR, 10, 229)},
	{name: "make a link by a tun device (10:200)", try: tun},
	{name: "open a virtual machine (10:232, /dev/kvm)", try: opened(unix.S_IFCHR, 10, 232)},
	{name: "open a serial console (4:64)", try: opened(unix.S_IFCHR, 4, 64)},
	{name: "open a second serial port (4:65)", try: opened(unix.S_IFCHR, 4, 65)},
	{name: "open a mapped disk (253:0)", try: opened(unix.S_IFBLK, 253, 0)},
	{name: "open a virtual machine's disk (254:0)", try: opened(unix.S_IFBLK, 254, 0)},
	{name: "open loop devices (10:237)", try: opened(unix.S_IFCHR, 10, 237)},
	{name: "open vfio (10:196)", try: opened(unix.S_IFCHR, 10, 196)},
	{name: "open what types for the user (10:223, /dev/uinput)", try: opened(unix.S_IFCHR, 10, 223)},
	{name: "open a network driver in the kernel (10:238, vhost)", try: opened(unix.S_IFCHR, 10, 238)},
	{name: "what lies in /dev", try: list("/dev")},
}}

var kernel = group{"the kernel", []attempt{
	{name: "read its log by syslog(2)", try: func() error { _, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 64)); return err }},
	{name: "/proc/sysrq-trigger", try: optional(write("/proc/sysrq-trigger", "h"))},
	{name: "/proc/sys/kernel/core_pattern", try: write("/proc/sys/kernel/core_pattern", "core")},
	{name: "/proc/sys/kernel/modprobe", try: optional(write("/proc/sys/kernel/modprobe", "/app"))},
	{name: "/proc/sys/vm/panic_on_oom", try: write("/proc/sys/vm/panic_on_oom", "0")},
	{name: "/proc/sys/net/ipv4/ip_forward", try: write("/proc/sys/net/ipv4/ip_forward", "1")},
	{name: "/proc/sys/user/max_user_namespaces", try: write("/proc/sys/user/max_user_namespaces", "1000")},
	{name: "/proc/sys/fs/binfmt_misc/register", try: optional(write("/proc/sys/fs/binfmt_misc/register", ""))},
	{name: "addresses of the kernel in /proc/kallsyms", try: kallsyms},
	{name: "/proc/irq/default_smp_affinity", try: write("/proc/irq/default_smp_affinity", "1")},
	{name: "any file of /sys", try: sys},
	{name: "/proc/kcore", try: read("/proc/kcore")},
	{name: "/proc/keys", try: read("/proc/keys")},
	{name: "/proc/timer_list", try: read("/proc/timer_list")},
	{name: "/proc/acpi", try: read("/proc/acpi")},
	{name: "/proc/scsi", try: read("/proc/scsi")},
	{name: "/sys/firmware", try: read("/sys/firmware")},
	{name: "/sys/devices/virtual/powercap", try: read("/sys/devices/virtual/powercap")},
	{name: "/sys/kernel/debug", try: read("/sys/kernel/debug")},
	{name: "/sys/kernel/security", try: read("/sys/kernel/security")},
	{name: "/sys/fs/bpf", try: read("/sys/fs/bpf")},
	{name: "init_module", try: call(unix.SYS_INIT_MODULE)},
	{name: "finit_module", try: call(unix.SYS_FINIT_MODULE)},
	{name: "delete_module", try: func() error { return unix.DeleteModule("kogge_no_such_module", 0) }},
	{name: "bpf", try: call(unix.SYS_BPF)},
	{name: "perf_event_open", try: call(unix.SYS_PERF_EVENT_OPEN)},
	{name: "userfaultfd", try: call(unix.SYS_USERFAULTFD)},
	{name: "io_uring_setup", try: call(unix.SYS_IO_URING_SETUP)},
	{name: "keyctl", try: call(unix.SYS_KEYCTL)},
	{name: "add_key", try: call(unix.SYS_ADD_KEY)},
	{name: "request_key", try: call(unix.SYS_REQUEST_KEY)},
	{name: "fanotify_init", try: call(unix.SYS_FANOTIFY_INIT)},
	{name: "set the clock", try: func() error {
		now := unix.NsecToTimespec(time.Now().UnixNano())
		return unix.ClockSettime(unix.CLOCK_REALTIME, &now)
	}},
	{name: "adjust the clock", try: func() error { _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK, Tick: 10000}); return err }},
	{name: "reboot(2): what Ctrl-Alt-Del does", try: func() error { return unix.Reboot(int(int32(cadOn))) }},
	{name: "kexec_load", try: call(unix.SYS_KEXEC_LOAD)},
	{name: "swapon", try: call(unix.SYS_SWAPON)},
	{name: "swapoff", try: call(unix.SYS_SWAPOFF)},
	{name: "acct", try: call(unix.SYS_ACCT)},
	{name: "quotactl", try: call(unix.SYS_QUOTACTL)},
	{name: "name_to_handle_at and open_by_handle_at", try: handle},
	{name: "all of these and some more, by 32-bit calls", try: narrow("all")},
	{name: "personality: no address randomisation", try: call(unix.SYS_PERSONALITY, 0x0040000)},
}}

// cadOn has the command's 32 bits: where an int has no more, the constant does not fit.
var cadOn = uint32(unix.LINUX_REBOOT_CMD_CAD_ON)

var processes = group{"processes", []attempt{
	{name: "see any but its own, to signal or trace it", try: others},
	{name: "see its parent", try: parentless},
	{name: "signal all that there are", try: func() error { return unix.Kill(-1, 0) }},
	{name: "kcmp", try: call(unix.SYS_KCMP, 1, 1, 0, 0, 0)},
	{name: "pidfd_getfd", try: call(unix.SYS_PIDFD_GETFD, ^uintptr(0))},
}}

var files = group{"the node's files", []attempt{
	{name: "/state", try: open("/state", os.O_RDONLY)},
	{name: "/state/identity", try: open("/state/identity", os.O_RDONLY)},
	{name: "/run/kogge/init.sock", try: open("/run/kogge/init.sock", os.O_RDONLY)},
	{name: "/state/kogge", try: open("/state/kogge", os.O_RDONLY)},
	{name: "/state/volumes", try: open("/state/volumes", os.O_RDONLY)},
	{name: "/run/kogge/node.yaml", try: open("/run/kogge/node.yaml", os.O_RDONLY)},
	{name: "/run/containerd", try: open("/run/containerd", os.O_RDONLY)},
	{name: "/boot", try: open("/boot", os.O_RDONLY)},
	{name: "/run/kogge/containerd.sock", try: open("/run/kogge/containerd.sock", os.O_RDONLY)},
	{name: "connect to an abstract socket of the node", try: abstract},
	{name: "/proc/1/root leads out", try: sameRoot("/proc/1/root")},
	{name: ".. leads out", try: sameRoot("/../../../..")},
	{name: "write /etc/hosts", try: write("/etc/hosts", "127.0.0.1 evil\n")},
	{name: "remove /etc/hosts", try: func() error { return os.Remove("/etc/hosts") }},
	{name: "put a link in the place of /etc/hosts", try: link("/etc/hosts")},
	{name: "move a volume away", try: func() error { return os.Rename("/data", "/elsewhere") }},
	{name: "write a file of the node through /etc/hosts", try: func() error { return os.Truncate("/etc/hosts", 0) }},
	{name: "change the owner of /etc/hosts", try: func() error { return os.Chown("/etc/hosts", 1000, 1000) }},
	{name: "read its own secret", try: read("/run/secrets/word"), why: "it is for it"},
	{name: "write its own secret", try: write("/run/secrets/word", "x")},
	{name: "run its own secret", try: func() error { return exec.Command("/run/secrets/word").Run() }},
}}

var cgroups = group{"cgroups", []attempt{
	{name: "write any file of its own, release_agent too", try: cgroupFiles},
	{name: "make a group below its own", try: subgroup},
	{name: "mount the hierarchy for writing", try: func() error { return unix.Mount("cgroup2", "/tmp", "cgroup2", 0, "") }},
	{name: "mount a hierarchy with a release_agent", try: func() error { return unix.Mount("cgroup", "/tmp", "cgroup", 0, "rdma") }},
	{name: "what it sees itself in", try: cgroup},
}}

var network = group{"the network", []attempt{
	{name: "a raw IP socket, to send from a forged address", try: socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)},
	{name: "a packet socket, to send ARP for another", try: socket(unix.AF_PACKET, unix.SOCK_RAW, 0)},
	{name: "a packet socket, to hear others", try: socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)},
	{name: "a raw IPv6 socket, to play the router", try: socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)},
	{name: "ping by an ICMP socket", try: socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP), why: "its own address, its own echoes"},
	{name: "bind a foreign address", try: foreign},
	{name: "send from a foreign address (IP_FREEBIND)", try: freebind},
	{name: "take another address", try: address},
	{name: "take another hardware address", try: ifreq(unix.SIOCSIFHWADDR)},
	{name: "hear what is for others (promiscuous)", try: ifreq(unix.SIOCSIFFLAGS)},
	{name: "its own firewall (nftables)", try: func() error { return netlink(unix.NETLINK_NETFILTER, 10<<8, 0) }},
	{name: "messages among programs (NETLINK_USERSOCK)", try: socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_USERSOCK)},
	{name: "its own routes and links (NETLINK_ROUTE)", try: socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE), why: "to look at"},
	{name: "an attribute of 5000 bytes for a file in memory", try: func() error { return unix.Setxattr("/dev/shm", "user.long", make([]byte, 5000), 0) }},
	{name: "a socket to the virtual machine's host (vsock)", try: socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)},
	{name: "the kernel's ciphers (AF_ALG)", try: socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)},
	{name: "the kernel's ciphers, by socketpair(2)", try: func() error { _, err := unix.Socketpair(unix.AF_ALG, unix.SOCK_SEQPACKET, 0); return err }},
	{name: "the kernel's ciphers, by 32-bit socketcall(2)", try: narrow("socketcall")},
	{name: "the kernel's ciphers, by 32-bit socket(2)", try: narrow("socket")},
	{name: "the kernel's ciphers, by 32-bit socketpair(2)", try: narrow("socketpair")},
	{name: "the kernel's ciphers, by x32 socket(2)", try: narrow("x32")},
	{name: "take connections that are for others (IP_TRANSPARENT)", try: transparent},
	{name: "the node's API (port 7443 of the gateway)", try: connect("10.88.0.1:7443")},
	{name: "a cloud's metadata (169.254.169.254)", try: connect("169.254.169.254:80")},
	{name: "listen on port 80", try: listen, why: "in its own network"},
}}
