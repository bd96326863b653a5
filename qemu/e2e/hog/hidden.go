package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What follows holds memory of the kernel that does not count against a container's limit.

// buffers asks for what a socket may have at most.
const buffers = 1 << 30

// each makes sockets with make until there are no more, and has fill fill each.
func each(make func() (int, error), fill func(fd int) error) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	time.Sleep(time.Millisecond) // the first one takes files of its own
	for n := 0; ; n++ {
		fd, err := make()
		if err != nil {
			return fmt.Errorf("socket %d: %w", n, err)
		}
		kept.files = append(kept.files, fd)
		for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, buffers); err != nil {
				return fmt.Errorf("socket %d: %w", n, err)
			}
		}
		if err := fill(fd); err != nil && err != unix.EAGAIN && err != unix.ENOBUFS {
			return fmt.Errorf("fill socket %d: %w", n, err)
		}
	}
}

func socket(family, kind, protocol int) func() (int, error) {
	return func() (int, error) { return unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol) }
}

// messages has sockets of netlink send to themselves, and reads nothing.
func messages(string) error {
	message := make([]byte, 32<<10)
	binary.NativeEndian.PutUint32(message, uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], 0x10) // NLMSG_MIN_TYPE
	return each(socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_USERSOCK), func(fd int) error {
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		self, err := unix.Getsockname(fd)
		for err == nil {
			err = unix.Sendto(fd, message, unix.MSG_DONTWAIT, self)
		}
		return err
	})
}

// answers asks the kernel for its links, and does not read what it says.
func answers(string) error {
	request := make([]byte, unix.NLMSG_HDRLEN+unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(request[unix.NLMSG_HDRLEN+4:], 1) // the loopback
	return each(socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE), func(fd int) error {
		for range 1000 { // it drops what has no room
			if err := unix.Sendto(fd, request, unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				return err
			}
		}
		return nil
	})
}

// echoes has sockets of ping ask the loopback, and reads no answer.
func echoes(string) error {
	echo := make([]byte, 60000)
	echo[0] = 8
	self := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	return each(socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP), func(fd int) error {
		for range 20 {
			if err := unix.Sendto(fd, echo, unix.MSG_DONTWAIT, self); err != nil {
				return err
			}
		}
		return nil
	})
}

// halves sends datagrams that are not finished, and never leave.
func halves(string) error {
	part := make([]byte, 60000)
	return each(socket(unix.AF_INET, unix.SOCK_DGRAM, 0), func(fd int) error {
		return unix.Sendto(fd, part, unix.MSG_DONTWAIT|unix.MSG_MORE, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9})
	})
}

// callers connects to itself, sends, and accepts nobody: no descriptor stands for what waits.
func callers(string) error {
	data := make([]byte, 60000)
	return each(socket(unix.AF_INET, unix.SOCK_STREAM, 0), func(listener int) error {
		if err := errors.Join(unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(listener, 65535)); err != nil {
			return err
		}
		self, err := unix.Getsockname(listener)
		if err != nil {
			return err
		}
		for range 4000 { // somaxconn is 4096
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			if err = unix.Connect(fd, self); err == nil {
				_ = unix.Sendto(fd, data, unix.MSG_DONTWAIT, nil)
			}
			unix.Close(fd)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// filters gives each socket a program as long as it may be.
func filters(string) error {
	program := make([]unix.SockFilter, 4096)
	for i := range program {
		program[i] = unix.SockFilter{Code: unix.BPF_LD | unix.BPF_IMM, K: uint32(i)}
	}
	return each(socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0), func(fd int) error {
		for n := len(program); n > 0; n /= 2 {
			program[n-1] = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
			if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(n), Filter: &program[0]}); err != unix.ENOMEM {
				return err
			}
		}
		return unix.ENOMEM
	})
}

// lists makes files with the longest list of who may read them that the kernel takes.
func lists(string) error {
	const dir = "/dev/shm"
	most := 8100
	for n := 0; ; n++ {
		name := filepath.Join(dir, fmt.Sprint("list", n))
		if err := unix.Mkdir(name, 0o700); err != nil && err != unix.EEXIST {
			return fmt.Errorf("file %d: %w", n, err)
		}
		for _, attribute := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
			err := unix.Setxattr(name, attribute, list(most), 0)
			for ; err != nil && most > 1; err = unix.Setxattr(name, attribute, list(most), 0) {
				most /= 2
			}
			if err != nil {
				return fmt.Errorf("list of file %d: %w", n, err)
			}
		}
	}
}

// list is an access list of so many users.
//
// Source: include/uapi/linux/posix_acl_xattr.h in the kernel tree.
func list(users int) []byte {
	type entry struct {
		tag, perm uint16
		id        uint32
	}
	all := []entry{{1, 7, ^uint32(0)}}
	for range users {
		all = append(all, entry{2, 4, 1000})
	}
	all = append(all, entry{4, 4, ^uint32(0)}, entry{16, 7, ^uint32(0)}, entry{32, 0, ^uint32(0)})
	bytes := binary.NativeEndian.AppendUint32(nil, 2)
	return append(bytes, unsafe.Slice((*byte)(unsafe.Pointer(&all[0])), 8*len(all))...)
}
