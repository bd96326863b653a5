package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// found is what this container was given of its image: its environment, who and where it
// is, and what each path is.
func found(paths []string) string {
	var b strings.Builder
	env := os.Environ()
	slices.Sort(env)
	groups, _ := os.Getgroups()
	slices.Sort(groups)
	here, err := os.Getwd()
	if err != nil {
		here = err.Error()
	}
	fmt.Fprintf(&b, "env %s\nuser %d:%d %v\nin %s\n", strings.Join(env, " "), os.Getuid(), os.Getgid(), groups, here)
	for _, path := range paths {
		fmt.Fprintf(&b, "%s %s\n", path, what(path))
	}
	return b.String()
}

// what says what is at path: mode, owner, and of a file what it says.
func what(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	said := fmt.Sprintf("%06o %d:%d", st.Mode, st.Uid, st.Gid)
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		text, err := os.ReadFile(path)
		if err != nil {
			return said + " " + err.Error()
		}
		said += fmt.Sprintf(" %.64q", text)
	}
	return said
}

// grow makes the file at path a byte longer.
func grow(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("x"); err != nil {
		return err
	}
	return f.Close()
}
