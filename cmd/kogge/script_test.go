package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"kogge.example/update/golden"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kogge": main})
}

// TestScript types command lines that need no virtual machine and no network. Each
// script has a cache and a configuration of its own, and beyond the commands of testscript:
//
//	hold VAR    takes a port of 127.0.0.1 until the script ends; its number is in VAR
//	untouched   fails if kogge has left anything in its cache
//
// $KOGGE is the program for scripts that take PATH away.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       golden.Updating(),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			program, err := exec.LookPath("kogge")
			if err != nil {
				return err
			}
			env.Setenv("KOGGE", program)
			env.Setenv("KOGGE_CACHE", filepath.Join(env.WorkDir, "cache"))
			env.Setenv("KOGGE_CONFIG", filepath.Join(env.WorkDir, "config"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"hold": func(ts *testscript.TestScript, _ bool, args []string) {
				l, err := net.Listen("tcp4", "127.0.0.1:0")
				ts.Check(err)
				ts.Defer(func() { l.Close() })
				ts.Setenv(args[0], fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
			},
			"untouched": func(ts *testscript.TestScript, _ bool, _ []string) {
				left, err := os.ReadDir(ts.Getenv("KOGGE_CACHE"))
				if err == nil && len(left) > 0 {
					ts.Fatalf("the cache has %v", left)
				}
			},
		},
	})
}
