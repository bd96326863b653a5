package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"kogge.example/init/change"
	"kogge.example/init/control"
	"kogge.example/init/guard"
	"kogge.example/init/trial"
)

// keepSettings makes the keeper of node.yaml. Services that it wants to start anew
// go to restarts.
func (n *node) keepSettings(restarts chan<- string) *change.Keeper {
	o := change.Options{
		Running: nodeYAML,
		Rename:  n.rename,
		Restart: func(service string) { restarts <- service },
		Say:     n.say,
	}
	if n.persist {
		o.Copy = configCopy
	}
	return change.New(o, n.settings, n.config)
}

// answer answers control requests that are not about services.
func (n *node) answer(keeper *change.Keeper, assessment *trial.Assessor, r control.Request) (answer control.Response) {
	defer func() {
		if v := recover(); v != nil { // one client's trouble is no reason to reboot
			guard.Kmsg(fmt.Sprintf("control: %s: panic: %v", r.Op, v))
			answer = control.Response{Error: "internal error of PID 1; the kernel log says more"}
		}
	}()
	var err error
	switch r.Op {
	case control.OpConfig:
		answer.Config = keeper.Status()
	case control.OpSet:
		var text []byte
		if text, err = change.ReadFile(runDir, r); err == nil {
			answer.Config, err = keeper.Set(r, text)
		}
	case control.OpConfirm:
		answer.Config, err = keeper.Confirm(r.Base)
	case control.OpUndo:
		answer.Config, err = keeper.Undo()
	case control.OpAssess:
		answer.Assessment = assessment.Answer(r)
	case control.OpReset:
		err = n.askReset(r, keeper.Kept())
	default:
		err = fmt.Errorf("unknown op %q", r.Op)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	return answer
}

// rename gives the node its host name; "" is one made of its machine id.
func (n *node) rename(name string) error {
	if name == "" {
		id := strings.TrimSpace(string(readOptional(etcDir + "/machine-id")))
		name = "kogge-" + id[:min(6, len(id))]
	}
	return errors.Join(
		os.WriteFile(etcDir+"/hostname", []byte(name+"\n"), 0o644),
		unix.Sethostname([]byte(name)),
	)
}

// hostname is the node's name as the kernel has it, which a change may have given it.
func hostname() string {
	name, _ := os.Hostname() // "" leaves it out of the screen
	return name
}
