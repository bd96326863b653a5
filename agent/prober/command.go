package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// command is what an operator may run inside a container, for the test of exec:
//
//	exit N        ends with the code N
//	cat           copies its input to its output, and ends with it
//	both          writes to standard output and to standard error
//	self          who it is: user, folder, environment, rights
//	size          the size of its terminal, now and whenever it changes, until it reads "q"
//	interrupted   ends with 3 when it is interrupted
//	flood         writes for ever
//	stubborn      ends for no signal that it can hear, and has a child of that kind
//	leave         ends, and leaves a child that holds its output
func command(args []string) {
	switch args[0] {
	case "exit":
		code, err := strconv.Atoi(args[1])
		if err != nil {
			log.Fatal(err)
		}
		os.Exit(code)
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			log.Fatal(err)
		}
	case "both":
		fmt.Println("to standard output")
		fmt.Fprintln(os.Stderr, "to standard error")
	case "self":
		self()
	case "size":
		size()
	case "interrupted":
		came := make(chan os.Signal, 1)
		signal.Notify(came, os.Interrupt)
		fmt.Println("ready")
		<-came
		os.Exit(3)
	case "flood":
		line := []byte(strings.Repeat("x", 1023) + "\n")
		for {
			if _, err := os.Stdout.Write(line); err != nil {
				log.Fatal(err)
			}
		}
	case "stubborn":
		signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE)
		if len(args) == 1 {
			child := exec.Command("/proc/self/exe", "command", "stubborn", "child")
			if err := child.Start(); err != nil {
				log.Fatal(err)
			}
			fmt.Println("ready")
		}
		hang()
	case "leave":
		child := exec.Command("/proc/self/exe", "hang")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Start(); err != nil {
			log.Fatal(err)
		}
	default:
		log.Fatalf("command %q is unknown", args[0])
	}
}

func self() {
	folder, err := os.Getwd()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("folder", folder)
	env := os.Environ()
	slices.Sort(env)
	fmt.Println("environment", strings.Join(env, " "))
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		log.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters":
			fmt.Print(line)
		}
	}
	profile, err := os.ReadFile("/proc/self/attr/current")
	fmt.Printf("profile %q %v\n", profile, err)
	for _, name := range []string{"pid", "ipc", "uts", "mnt", "net", "cgroup", "user"} {
		link, err := os.Readlink("/proc/self/ns/" + name)
		fmt.Println("namespace", link, err)
	}
}

func size() {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	quit := make(chan struct{})
	go func() {
		defer close(quit)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan() && lines.Text() != "q"; {
		}
	}()
	for {
		w, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
		if err != nil {
			log.Fatal("no terminal: ", err)
		}
		fmt.Printf("%d x %d\n", w.Col, w.Row)
		select {
		case <-resized:
		case <-quit:
			return
		}
	}
}

// eat takes memory until the kernel says no.
func eat() {
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = byte(i)
		}
		all = append(all, b)
		if len(all) > 1<<12 {
			log.Fatal("there is no limit")
		}
	}
}
