// Package engine is the door to containerd for containers: it carries out what package
// keeper decides, and what operators ask of volumes and of commands inside containers.
// Their images are package images'.
//
// In come containers, the instance that is to be made of them, and where its network is;
// out go tasks of containerd with their files, rights and limits. A container starts from
// its image each time; what is to last lies in a volume. The package leaves alone what is
// not in its containerd namespace.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"kogge.example/agent/confine"
	"kogge.example/agent/images"
	"kogge.example/agent/registry"
	"kogge.example/agent/trees"
	"kogge.example/agent/turns"
	"kogge.example/agent/workload"
)

// Labels that a container carries in containerd's store, so that an agent that
// knows nothing finds out everything.
const (
	labelSpec  = "kogge.example/spec"  // Container.Hash
	labelImage = "kogge.example/image" // digest of the image it was made from
	labelEnded = "kogge.example/ended" // "BOOT CODE": ended in that boot, for good

	labelRelieved = "kogge.example/relieved" // "yes": another instance has taken over
)

// extension is a record's name in the store.
const extension = "kogge.example/instance"

func init() { typeurl.Register(&workload.Record{}, "kogge.example", "workload", "instance") }

// Paths are the places that an Engine uses; all absolute.
type Paths struct {
	Socket string // containerd's
	Runc   string // the binary
	Init   string // the shim's binary, which is also process 1 of containers that want one
	State  string // folder of runc's state; forgotten by a boot, as containers are
	Logs   string // folder of the containers' output
	// Files is the folder of their resolv.conf, hosts, hostname, configs and secrets. It
	// has to lie in memory, so that no secret of a container touches the disk here. As they
	// were applied, sealed, secrets lie on STATE (package wanted), and the environment of a
	// container in the clear in containerd's database.
	Files   string
	Volumes string // folder of named volumes
	// Data is the folder that [nodeconfig.Data] stands for. On Binds it and other folders
	// of the node are held for containers, by mounts.
	Data, Binds string
	Resolv      string          // the node's resolv.conf
	Registries  *registry.Store // the settings that a pull goes by
	// Images is a folder of the file system on which images lie: a tenth of it stays
	// free; "" sets no bound.
	Images string
	// ShimCgroup takes the shims out of containerd's own cgroup, so that ending
	// that one ends no container; "" leaves them there.
	ShimCgroup string
	// Cgroup is the parent of the containers' cgroups, and Cgroups where these are mounted.
	Cgroup, Cgroups string
	// Most is what one container can have at the most.
	Most confine.Most
	// Remove removes a folder of very many files; nil: this process does.
	Remove func(ctx context.Context, folder string) error
}

// Engine carries out on containerd what the Keeper decides.
type Engine struct {
	// Store is the images of the node.
	*images.Store
	// OOM, if there is one, is called when the kernel has killed a process of an
	// instance for its memory limit. It is set before the first use.
	OOM func(instance string)

	paths  Paths
	boot   string
	client *client.Client
	turns  *limiter // of health checks and commands that are starting
	execs  *execs

	volumes sync.Mutex  // held while the folder of a volume is made or set aside
	filling turns.Turns // of who looks whether a volume is new, and fills it; by its name
	bin     *trees.Bin  // beside the volumes
}

// Connect returns an engine for the containerd at p.Socket, which need not be
// there yet. boot is the kernel's boot id.
func Connect(p Paths, boot string) (*Engine, error) {
	c, err := client.New(p.Socket, client.WithDefaultNamespace(images.Namespace), client.WithTimeout(connectLimit))
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", p.Socket, err)
	}
	e := &Engine{paths: p, boot: boot, client: c, turns: newLimiter(), execs: newExecs()}
	e.bin = trees.OpenBin(p.Volumes, p.Remove)
	e.Store = images.New(c, p.Images, p.Registries, e.List)
	return e, nil
}

// connectLimit is for one try; the Keeper tries again.
const connectLimit = 10 * time.Second

// Close ends the commands that run in containers, and removals, and leaves containerd;
// containers go on.
func (e *Engine) Close() error {
	e.execs.end()
	e.bin.Close()
	return e.client.Close()
}

func (e *Engine) context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, images.Namespace)
}

// Tend looks after images until ctx ends (see [images.Store.Tend]), and removes what is
// left of volumes and containers.
func (e *Engine) Tend(ctx context.Context) {
	var sweeping sync.WaitGroup
	sweeping.Go(func() { e.sweep(ctx) })
	e.Store.Tend(ctx)
	sweeping.Wait()
}

// Serving says whether containerd answers.
func (e *Engine) Serving(ctx context.Context) error {
	ok, err := e.client.IsServing(ctx)
	if err == nil && !ok {
		err = errors.New("not serving")
	}
	if err != nil {
		return fmt.Errorf("containerd at %s: %w", e.paths.Socket, err)
	}
	return nil
}

// Lost returns when containerd has gone away, with the reason, or with nil when
// ctx ends. Until then it hears of processes that are out of memory.
func (e *Engine) Lost(ctx context.Context) error {
	messages, errs := e.client.Subscribe(e.context(ctx), `topic=="/tasks/oom"`)
	for {
		select {
		case m := <-messages:
			var oom eventtypes.TaskOOM
			if e.OOM != nil && m != nil && m.Event != nil && typeurl.UnmarshalTo(m.Event, &oom) == nil {
				e.OOM(oom.ContainerID)
			}
		case err := <-errs:
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				err = errors.New("event stream ended")
			}
			return fmt.Errorf("containerd at %s: %w", e.paths.Socket, err)
		case <-ctx.Done():
			return nil
		}
	}
}

// List returns all containers that are there.
func (e *Engine) List(ctx context.Context) ([]workload.Found, error) {
	ctx = e.context(ctx)
	all, err := e.client.Containers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var found []workload.Found
	for _, c := range all {
		f, err := e.found(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", c.ID(), err)
		}
		found = append(found, f)
	}
	return found, nil
}

func (e *Engine) found(ctx context.Context, c client.Container) (workload.Found, error) {
	info, err := c.Info(ctx, client.WithoutRefreshedMetadata)
	if err != nil {
		return workload.Found{}, fmt.Errorf("labels: %w", err)
	}
	labels := info.Labels
	// A container is made right before its one start.
	f := workload.Found{
		Record: workload.Record{Instance: workload.Instance{Name: c.ID()}, StopGrace: workload.DefaultStopGrace},
		Spec:   labels[labelSpec], Image: labels[labelImage], Task: workload.Absent, Started: info.CreatedAt,
		Relieved: labels[labelRelieved] != "",
	}
	// What we did not write leaves it nobody's: the Keeper takes it away.
	if v, err := typeurl.UnmarshalAny(info.Extensions[extension]); err == nil {
		if r, ok := v.(*workload.Record); ok && r.Name == f.Name {
			f.Record = *r
		}
	}
	if boot, code, ok := strings.Cut(labels[labelEnded], " "); ok && boot == e.boot {
		if f.Exit, err = strconv.Atoi(code); err == nil {
			f.Task = workload.Over
			return f, nil
		}
	}
	task, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return f, nil
	}
	if err != nil {
		return workload.Found{}, fmt.Errorf("task: %w", err)
	}
	status, err := task.Status(ctx)
	if errdefs.IsNotFound(err) {
		return f, nil
	}
	if err != nil {
		return workload.Found{}, fmt.Errorf("task status: %w", err)
	}
	switch status.Status {
	case client.Running:
		f.Task = workload.Alive
	case client.Stopped:
		f.Task, f.Exit = workload.Exited, int(status.ExitStatus)
	default:
		f.Task = workload.Strange
	}
	return f, nil
}

// Start makes and starts an instance of c that is not there: a fresh root file system,
// the spec, the task, in the namespaces of a place. When it fails,
// what it made is left for Remove.
func (e *Engine) Start(ctx context.Context, c workload.Container, i workload.Instance, at workload.Namespaces) error {
	ctx = e.context(ctx)
	if err := images.RunsHere(c.Platform); err != nil {
		return err
	}
	img, err := e.Image(ctx, c.Image, c.Platform)
	if err != nil {
		return err
	}
	// One lease for all of it keeps the collector off what is not yet linked.
	ctx, done, err := e.client.WithLease(ctx)
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	defer done(context.WithoutCancel(ctx))
	labels := map[string]string{}
	maps.Copy(labels, c.Labels)
	maps.Copy(labels, map[string]string{labelSpec: c.Hash(), labelImage: img.Target().Digest.String()})
	var made *oci.Spec
	created, err := e.client.NewContainer(ctx, i.Name,
		client.WithImage(img),
		client.WithSnapshotter(images.Snapshotter),
		client.WithNewSnapshot(i.Name, img, remapped(at.Owner)...),
		client.WithAdditionalContainerLabels(labels),
		client.WithImageStopSignal(img, "SIGTERM"), // whatever those labels say
		client.WithContainerExtension(extension, workload.RecordOf(c, i)),
		// By name, found in containerd's PATH: for a path it would first run shim
		// and runc once more to ask what they can do.
		client.WithRuntime("io.containerd.runc.v2", e.options(at.Owner)),
		client.WithNewSpec(append(e.spec(c, i.Name, img, at), func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
			made = s
			return nil
		})...),
	)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := e.ownRoot(ctx, i.Name); err != nil {
		return err
	}
	task, err := created.NewTask(ctx, e.output(c.ID))
	if err != nil {
		return fmt.Errorf("create task: %w", cannotMount(err))
	}
	// Only now: what has to be there before its first process, the container has of the
	// node's reserve.
	if err := e.bindRoot(ctx, i.Name); err != nil {
		return err
	}
	args := made.Process.Args
	if c.Init {
		args = args[1:]
	}
	// All that the kernel would say is EPERM.
	if program, missing := confine.Unmet(task.Pid(), args, made); len(missing) > 0 {
		return fmt.Errorf("start: %s: %s", program, confine.Remedy(c, missing))
	}
	if err := task.Start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return nil
}

// options say also whose the pipes of a container are: it may open them by name.
func (e *Engine) options(owner workload.Owner) *options.Options {
	return &options.Options{
		BinaryName: e.paths.Runc, Root: e.paths.State, ShimCgroup: e.paths.ShimCgroup, IoUid: owner.First, IoGid: owner.First,
	}
}

// output leads to the shim's ring. A FIFO would need a reader that is always
// alive, a plain file has no bound, and a logger process costs 5 MiB for each
// container; the ring is a goroutine of the shim, 100 KiB.
func (e *Engine) output(id string) cio.Creator {
	uri := "ring://" + e.logOf(id)
	return func(string) (cio.IO, error) { return output{uri}, nil }
}

type output struct{ uri string }

func (o output) Config() cio.Config { return cio.Config{Stdout: o.uri, Stderr: o.uri} }
func (output) Cancel()              {}
func (output) Wait()                {}
func (output) Close() error         { return nil }

// Wait returns the exit code of the running instance, once it has one.
func (e *Engine) Wait(ctx context.Context, name string) (int, error) {
	task, err := e.task(e.context(ctx), name)
	if err != nil {
		return 0, err
	}
	exit, err := task.Wait(e.context(ctx))
	if err != nil {
		return 0, fmt.Errorf("wait for %s: %w", name, err)
	}
	select {
	case status := <-exit:
		if err := status.Error(); err != nil {
			return 0, fmt.Errorf("wait for %s: %w", name, err)
		}
		return int(status.ExitCode()), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (e *Engine) task(ctx context.Context, name string) (client.Task, error) {
	c, err := e.client.LoadContainer(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", name, err)
	}
	task, err := c.Task(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("task of %s: %w", name, err)
	}
	return task, nil
}

// Mark notes that the instance ended with code and stays so for this boot, and lets
// its shim go.
func (e *Engine) Mark(ctx context.Context, name string, code int) error {
	ctx = e.context(ctx)
	c, err := e.client.LoadContainer(ctx, name)
	if err != nil {
		return fmt.Errorf("container %s: %w", name, err)
	}
	// First the note, then the task: a cut between them finds the note.
	note := map[string]string{labelEnded: fmt.Sprintf("%s %d", e.boot, code)}
	if _, err := c.SetLabels(ctx, note); err != nil {
		return fmt.Errorf("container %s: label: %w", name, err)
	}
	task, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("task of %s: %w", name, err)
	}
	if _, err := task.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("task of %s: delete: %w", name, err)
	}
	return nil
}

// Relieve notes that another instance has taken over from this one.
func (e *Engine) Relieve(ctx context.Context, name string) error {
	ctx = e.context(ctx)
	c, err := e.client.LoadContainer(ctx, name)
	if err == nil {
		_, err = c.SetLabels(ctx, map[string]string{labelRelieved: "yes"})
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("container %s: record that it is replaced: %w", name, err)
	}
	return nil
}

// Remove stops the instance, by signal ("": the image's) and after grace by
// SIGKILL, and deletes it with its root file system. None there is no error. The error has a
// [workload.Told] in it if it got the signal.
func (e *Engine) Remove(ctx context.Context, name, sig string, grace time.Duration) error {
	ctx = e.context(ctx)
	c, err := e.client.LoadContainer(ctx, name)
	if errdefs.IsNotFound(err) {
		// A start that failed early may have left a root file system.
		e.emptySnapshot(ctx, name)
		if err := e.client.SnapshotService(images.Snapshotter).Remove(ctx, name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("container %s: root file system: %w", name, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", name, err)
	}
	if err := e.end(ctx, c, sig, grace); err != nil {
		return fmt.Errorf("container %s: %w", name, err)
	}
	ctx, cancel := unbroken(ctx)
	defer cancel()
	e.emptySnapshot(ctx, name)
	f, known := e.found(ctx, c)
	if err := c.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("container %s: delete: %w", name, err)
	}
	if known == nil {
		e.dropOutput(f.ID)
	}
	return nil
}

// dropOutput removes what a container has written, if nobody wants one of that name any
// more. What a job wrote stays for as long as its project does. Of one that nobody can tell
// about it stays too.
func (e *Engine) dropOutput(id string) {
	if id == "" || id != filepath.Base(id) {
		return // of an older release's agent
	}
	wanted, err := e.Wanted()
	if err != nil || slices.ContainsFunc(wanted, func(c workload.Container) bool { return c.ID == id }) {
		return
	}
	for _, name := range []string{e.logOf(id), e.logOf(id) + ".1"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Printf("container %s: output: %v", id, err)
		}
	}
}

// logOf is where the output of a container goes, until it is full; then that is put aside
// under this name with ".1" behind it.
func (e *Engine) logOf(id string) string { return filepath.Join(e.paths.Logs, id+".log") }

// end stops and deletes the task of c, if it has one.
func (e *Engine) end(ctx context.Context, c client.Container, sig string, grace time.Duration) error {
	task, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		// Of a deletion that was broken off containerd may still hold what cannot be
		// seen, and nothing of that name can be made.
		ctx, cancel := unbroken(ctx)
		defer cancel()
		_, _ = e.client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: c.ID()})
		return nil
	}
	if err != nil {
		return fmt.Errorf("task: %w", err)
	}
	told, err := stop(ctx, c, task, sig, grace)
	if err == nil {
		err = e.kill(ctx, c, task)
	}
	if err != nil && told {
		return workload.Told{Err: err}
	}
	return err
}

// kill ends what is left of a task, and deletes it.
func (e *Engine) kill(ctx context.Context, c client.Container, task client.Task) error {
	// By ourselves: where there are as many processes as there can be, runc cannot start.
	confine.Kill(e.paths.Cgroups, filepath.Join(e.paths.Cgroup, c.ID()))
	ctx, cancel := unbroken(ctx)
	defer cancel()
	if _, err := task.Delete(ctx, client.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete task: %w", err)
	}
	return nil
}

// unbroken goes on after the end of ctx, for as long as a deletion can take: containerd
// does not finish one whose caller has gone.
func unbroken(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

// stop tells a task to stop, and waits for that for as long as its grace lasts. told says that
// it got the signal.
func stop(ctx context.Context, c client.Container, task client.Task, sig string, grace time.Duration) (told bool, err error) {
	status, err := task.Status(ctx)
	if err != nil || status.Status != client.Running || grace <= 0 {
		return false, nil // what is left is for SIGKILL
	}
	exit, err := task.Wait(ctx)
	if err != nil {
		return false, fmt.Errorf("wait: %w", err)
	}
	if labels, err := c.Labels(ctx); sig == "" && err == nil {
		sig = labels[client.StopSignalLabel]
	}
	number, err := workload.ParseSignal(sig)
	if err != nil {
		number = syscall.SIGTERM // an image may name a signal that does not exist
	}
	err = task.Kill(ctx, number)
	switch {
	case ctx.Err() != nil:
		return err == nil, ctx.Err()
	case errdefs.IsUnavailable(err):
		return false, fmt.Errorf("signal %s: %w", number, err)
	case err != nil:
		return false, nil // what gets no signal is for SIGKILL, too
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-exit:
	case <-timer.C:
	case <-ctx.Done():
		return true, ctx.Err()
	}
	return true, nil
}
