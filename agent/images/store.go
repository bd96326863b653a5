// Package images is what there is of container images on this node: it lists them, pulls
// them from registries and archives, and takes away what nobody uses where STATE gets full.
//
// In come names of images, archives, and which containers are wanted; out go images in
// containerd's store. It is one of the doors to containerd. What runs of an image is
// package engine's.
package images

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"

	"kogge.example/agent/imageref"
	"kogge.example/agent/registry"
	"kogge.example/agent/turns"
	"kogge.example/agent/workload"
)

// Store is the images of the node. Its methods may be called from any goroutine.
type Store struct {
	// Release names the release that runs: another one may take a preload that this one
	// refuses. Set it before the store is used.
	Release string

	client *client.Client
	// folder is on the file system on which images lie: a tenth of it stays free; "" sets
	// no bound.
	folder     string
	registries *registry.Store // the settings that a pull goes by
	list       func(context.Context) ([]workload.Found, error)
	wants      func() ([]workload.Container, error)

	pulls      pulls
	collecting sync.Mutex  // held while images are removed to make room
	searching  turns.Turns // of who looks at all files of an image; by digest of its configuration
}

// New makes a store of the images that c has. folder is on the file system on which they
// lie: a tenth of it stays free; "" sets no bound. list says which containers are there.
func New(c *client.Client, folder string, registries *registry.Store, list func(context.Context) ([]workload.Found, error)) *Store {
	return &Store{client: c, folder: folder, registries: registries, list: list}
}

// RunsHere says that this node can run what is made for platform ("": for it).
func RunsHere(platform string) error {
	if platform == "" {
		return nil
	}
	p, err := platforms.Parse(platform)
	if err != nil {
		return fmt.Errorf("platform %q: %w", platform, err)
	}
	if !platforms.Default().Match(p) {
		return fmt.Errorf("%w: %s was requested, this node is %s", registry.ErrPlatform, platform, platforms.Format(platforms.DefaultSpec()))
	}
	return nil
}

// platformOf are the platforms that an image for platform, which runs here, is
// for; the best one first. "" is this node's.
func platformOf(platform string) platforms.MatchComparer {
	p, err := platforms.Parse(platform)
	if platform == "" || err != nil {
		return platforms.Default()
	}
	return platforms.OnlyStrict(p)
}

// CheckImage returns an error that wraps [workload.ErrNoImage] unless the node has the image of c, for
// the platform of c; [registry.ErrPlatform], if it cannot run what is for that.
func (s *Store) CheckImage(ctx context.Context, c workload.Container) error {
	if err := RunsHere(c.Platform); err != nil {
		return err
	}
	ctx = s.context(ctx)
	img, err := s.Image(ctx, c.Image, c.Platform)
	if err != nil {
		return err
	}
	if _, err := img.Config(ctx); errdefs.IsNotFound(err) {
		return fmt.Errorf("image %s for %s: %w", c.Image, cmp.Or(c.Platform, platforms.Format(platforms.DefaultSpec())), workload.ErrNoImage)
	} else if err != nil {
		return fmt.Errorf("image %s: %w", c.Image, err)
	}
	return nil
}

// Image is the image of that name, for platform, or [workload.ErrNoImage].
func (s *Store) Image(ctx context.Context, name, platform string) (client.Image, error) {
	img, err := s.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("image %s: %w", name, workload.ErrNoImage)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	// An older release took from archives whatever they called an image.
	if pin := imageref.Pin(name); pin != "" && pin != img.Target.Digest {
		return nil, fmt.Errorf("image %s: %w, but another one of that name, %s, which an archive gave it", name, workload.ErrNoImage, img.Target.Digest)
	}
	return client.NewImageWithPlatform(s.client, img, platformOf(platform)), nil
}

// Configuration is that of an image, as it is written, and its digest.
func (s *Store) Configuration(ctx context.Context, name, platform string) ([]byte, digest.Digest, error) {
	ctx = s.context(ctx)
	img, err := s.Image(ctx, name, platform)
	if err != nil {
		return nil, "", err
	}
	desc, err := img.Config(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("image %s: configuration: %w", name, err)
	}
	if desc.Size > registry.MaxDocument {
		return nil, "", fmt.Errorf("image %s: configuration: it has %d bytes", name, desc.Size)
	}
	data, err := content.ReadBlob(ctx, img.ContentStore(), desc)
	if err != nil {
		return nil, "", fmt.Errorf("image %s: configuration: %w", name, err)
	}
	return data, desc.Digest, nil
}

// Digest returns the digest of the image that name stands for on this node.
func (s *Store) Digest(ctx context.Context, name string) (string, error) {
	img, err := s.Image(s.context(ctx), name, "")
	if err != nil {
		return "", err
	}
	return img.Target().Digest.String(), nil
}

// Namespace is our part of containerd; what lies in others is not ours.
const Namespace = "kogge"

// Snapshotter makes root file systems out of image layers.
const Snapshotter = "overlayfs"

func (s *Store) context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}
