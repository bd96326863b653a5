package workload

import "slices"

// ImageKey is a key of an image's configuration, and what becomes of it.
type ImageKey struct {
	Path string // "config.Env"
	// Docker says that it is not the OCI's, but Docker's addition to it.
	Docker bool
	What   string
}

// ImageKeys are all keys that an image's configuration can have.
//
// Source: config.md of github.com/opencontainers/image-spec; specs-go/v1/image.go of
// github.com/moby/docker-image-spec; of Docker's older images api/types/container/config.go
// of github.com/moby/moby.
func ImageKeys() []ImageKey { return slices.Clone(imageKeys) }

const (
	ignored  = "ignored"
	asDocker = "ignored, as Docker does"
)

var imageKeys = []ImageKey{
	{Path: "architecture", What: "chosen for the node, or for `platform` of the service; an image for another one is refused"},
	{Path: "os", What: "must be linux"},
	{Path: "variant", What: "as architecture: one that the node's processor can run"},
	{Path: "os.version", What: ignored},
	{Path: "os.features", What: ignored},
	{Path: "rootfs", What: "the layers, each unpacked only if it has the digest that stands here"},
	{Path: "author", What: ignored},
	{Path: "created", What: ignored},
	{Path: "history", What: ignored},
	{Path: "config.Entrypoint", What: "done; `entrypoint` replaces it, and the image's Cmd with it. Exactly one empty text, `[\"\"]`, is none"},
	{Path: "config.Cmd", What: "done; `command` replaces it"},
	{Path: "config.Env", What: "done, over PATH and HOSTNAME, which every container has; `environment` goes over it. Without any PATH it is /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	{Path: "config.User", What: "done: a name or number, and a group, looked up in the image's /etc/passwd and /etc/group. Who names a group is in that alone, else in all that list the user. `user` replaces it"},
	{Path: "config.WorkingDir", What: "done; a folder that is missing is made, root's. `working_dir` replaces it"},
	{Path: "config.Volumes", What: "kept, each as a volume of the project; see below"},
	{Path: "config.ExposedPorts", What: "ignored: `ports` says what is published, and on a container's own networks every port is open"},
	{Path: "config.StopSignal", What: "done; SIGTERM where there is none, or what is no signal; `stop_signal` replaces it"},
	{Path: "config.Labels", What: "ignored: they become no labels of the container"},
	{Path: "config.ArgsEscaped", What: "ignored: it is for Windows"},
	{Path: "config.Healthcheck", Docker: true, What: "done; what `healthcheck` says replaces it, key by key"},
	{Path: "config.Shell", Docker: true, What: "runs a health check of the form CMD-SHELL, else /bin/sh -c does"},
	{Path: "config.OnBuild", Docker: true, What: "ignored: it is for builders"},
	{Path: "config.Memory", Docker: true, What: asDocker + ": `mem_limit` sets it"},
	{Path: "config.MemorySwap", Docker: true, What: asDocker},
	{Path: "config.CpuShares", Docker: true, What: asDocker},
	{Path: "config.Hostname", Docker: true, What: asDocker + ": `hostname` sets it, else it is the service's name"},
	{Path: "config.Domainname", Docker: true, What: asDocker},
	{Path: "config.AttachStdin", Docker: true, What: asDocker},
	{Path: "config.AttachStdout", Docker: true, What: asDocker},
	{Path: "config.AttachStderr", Docker: true, What: asDocker},
	{Path: "config.Tty", Docker: true, What: asDocker},
	{Path: "config.OpenStdin", Docker: true, What: asDocker},
	{Path: "config.StdinOnce", Docker: true, What: asDocker},
	{Path: "config.Image", Docker: true, What: asDocker},
	{Path: "config.NetworkDisabled", Docker: true, What: asDocker},
	{Path: "config.MacAddress", Docker: true, What: asDocker},
}
