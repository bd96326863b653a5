package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"kogge.example/init/clock"
	"kogge.example/init/entropy"
	"kogge.example/init/guard"
	"kogge.example/init/mount"
	"kogge.example/init/nodeconfig"
	"kogge.example/init/reset"
	"kogge.example/init/seed"
	"kogge.example/update/blank"
	"kogge.example/update/bootpart"
	"kogge.example/update/durable"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
	"kogge.example/update/osrelease"
	"kogge.example/update/partition"
)

// Where a node keeps its own things on STATE.
const (
	ownDir      = mount.StateDir + "/kogge"
	configCopy  = ownDir + "/node.yaml"
	configHash  = ownDir + "/node.yaml.imported"
	machineID   = ownDir + "/machine-id"
	joinYAML    = ownDir + "/join.yaml" // for the agent, which reads and removes it
	fwcfgDir    = "/sys/firmware/qemu_fw_cfg/by_name/opt/kogge/"
	fwcfgSeed   = fwcfgDir + "node.yaml/raw"
	fwcfgJoin   = fwcfgDir + "join.yaml/raw"
	bootSeed    = "kogge/node.yaml" // on the boot partition
	bootJoin    = reset.JoinFile
	entropySeed = ownDir + "/seed"
)

// configure reads the seed, brings STATE up and chooses the settings.
func (n *node) configure() error {
	in := n.readSeed()
	stateErr := n.mountState(in)
	if n.persist {
		in.Copy, in.CopyErr = readFile(configCopy)
		in.Imported, in.ImportedErr = readRecord(configHash)
	}
	c := seed.Choose(in)
	n.config = c.Config
	if c.Problem != nil { // more lines than the status screen shows; without what the file says, which may be secret
		why := nodeconfig.Public(c.Problem)
		n.degraded.Add("node.yaml", errors.New(why))
		for line := range strings.Lines(why) {
			n.say(strings.TrimRight(line, "\n"))
		}
	}
	if n.persist {
		if c.Import {
			n.degraded.Add("import of node.yaml", importConfig(c))
		}
		n.degraded.Add("join.yaml", n.importJoin())
	}
	if !n.persist {
		// Without its data no workload may start: it would begin from nothing.
		n.config.Workloads = nodeconfig.Workloads{}
		c.Text = n.config.Marshal()
	}
	n.settings = c.Text
	if err := os.WriteFile(nodeYAML, c.Text, 0o600); err != nil {
		return errors.Join(stateErr, fmt.Errorf("effective node.yaml: %w", err))
	}
	return stateErr
}

// readSeed looks for a node.yaml beside the image: from QEMU, else from the boot
// partition.
func (n *node) readSeed() seed.Input {
	data, err := readFile(fwcfgSeed)
	n.degraded.Add("node.yaml from QEMU", err)
	if data != nil {
		return seed.Input{Seed: data, From: "QEMU (fw_cfg)"}
	}
	data, err = readBootPartition(n.disk, bootSeed)
	n.degraded.Add("boot partition", err)
	if err := misnamed(n.disk); err != nil {
		n.degraded.Add("files on the boot partition", err)
		for line := range strings.Lines(err.Error()) {
			n.say("kogge: boot partition: " + strings.TrimRight(line, "\n"))
		}
	}
	return seed.Input{Seed: data, From: "the boot partition"}
}

// bootPartition is where the boot partition of a disk lies.
func bootPartition(d mount.Disk) (bootpart.Partition, error) {
	p, err := d.Table.Find(partition.ESP)
	if err != nil {
		return bootpart.Partition{}, err
	}
	return bootpart.Partition{Device: d.Parts[partition.ESP], Size: p.Size()}, nil
}

// readBootPartition reads one small file; nil if it is not there.
func readBootPartition(d mount.Disk, name string) ([]byte, error) {
	if d.Name == "" {
		return nil, nil // there is no disk that we may use
	}
	p, err := bootPartition(d)
	if err != nil {
		return nil, err
	}
	var data []byte
	err = p.Read(func(v *fat.Volume) (err error) {
		data, err = v.ReadFile(name)
		return err
	})
	if errors.Is(err, fat.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// misnamed says which files on the boot partition nobody reads. What cannot be listed, other
// reads complain of.
func misnamed(d mount.Disk) error {
	if d.Name == "" {
		return nil
	}
	p, err := bootPartition(d)
	if err != nil {
		return nil
	}
	var root, folder []string
	_ = p.Read(func(v *fat.Volume) error {
		for path, names := range map[string]*[]string{"": &root, reset.Folder: &folder} {
			entries, err := v.ReadDir(path)
			if err != nil {
				continue
			}
			for _, e := range entries {
				*names = append(*names, e.Name)
			}
		}
		return nil
	})
	return seed.Misnamed(root, folder)
}

// editBootPartition changes the boot partition. Nobody has it mounted.
func editBootPartition(d mount.Disk, edit func(*fat.Volume) error) error {
	p, err := bootPartition(d)
	if err != nil {
		return err
	}
	return p.Edit(edit)
}

// mountState mounts STATE from the boot disk, or a file system in memory where
// there is none that may or can be used.
func (n *node) mountState(in seed.Input) error {
	if n.disk.Name == "" {
		return mount.Volatile()
	}
	if err := mount.GrowState(&n.disk, n.cmdline.Verity.String()); err != nil {
		n.degraded.Add("growth of STATE", err)
	}
	var size int64
	if p, err := n.disk.Table.Find(partition.State); err == nil {
		size = p.Size()
	}
	limit := checkLimit(size)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var err error
	n.dog.While(limit, guard.Go, func() {
		if err = n.checkState(ctx, in); err == nil {
			var grown error
			n.telling("STATE grows to the size of the disk", func() { grown = mount.GrowFileSystem(n.disk) })
			n.degraded.Add("growth of STATE", grown)
		}
	})
	if err != nil {
		return errors.Join(err, mount.Volatile())
	}
	n.persist, n.trial.Memory = true, memory.Dir
	n.degraded.Add("name of STATE", mount.NewStateUUID(n.disk, n.cmdline.Verity.String(), blank.Seed))
	return os.MkdirAll(ownDir, 0o700)
}

// checkLimit is how long e2fsck may take with a STATE of size bytes: a whole check of a large
// slow disk takes hours, and one that is ended halfway would be ended at every boot anew.
// Two minutes are 12000 places that a hard disk has to seek to, in each GiB.
func checkLimit(size int64) time.Duration {
	return 30*time.Minute + 2*time.Minute*time.Duration(max(0, size)>>30)
}

// checkState mounts STATE, after making a new one if somebody asked for that on the
// boot partition, or if it is beyond repair and the seed says so. What the node
// remembers of its settings lies on STATE itself, so only the seed can be asked.
func (n *node) checkState(ctx context.Context, in seed.Input) error {
	if mounted, err := n.resetState(ctx); mounted || err != nil {
		return err
	}
	err := mount.MountState(ctx, n.disk, n.check)
	if !errors.Is(err, mount.ErrCorrupt) {
		return err
	}
	cfg, parseErr := nodeconfig.Parse("node.yaml", in.Seed)
	if in.Seed == nil || parseErr != nil || cfg.State.OnCorrupt != nodeconfig.Reformat {
		return fmt.Errorf("%w; it is left as it is (state.onCorrupt: hold)", err)
	}
	n.say("kogge: STATE is formatted (state.onCorrupt: reformat): " + err.Error())
	if err := n.reformat(""); err != nil {
		return err
	}
	return mount.MountState(ctx, n.disk, n.check)
}

// importConfig replaces the copy on STATE, then the record of its hash. A cut in
// between imports the same seed once more.
func importConfig(c seed.Choice) error {
	if err := durable.Replace(configCopy, c.Text, 0o600); err != nil {
		return err
	}
	return durable.Replace(configHash, []byte(c.Imported+"\n"), 0o600)
}

// importJoin moves join.yaml, with its single-use token, from the boot partition,
// where any laptop can read it, to STATE. It is removed there last: a cut before
// that moves it once more. What QEMU hands over stays in its file on the host; the
// agent knows what it has used.
func (n *node) importJoin() error {
	data, err := readFile(fwcfgJoin)
	if err != nil {
		return err
	}
	if data != nil {
		return durable.Replace(joinYAML, data, 0o600)
	}
	data, err = readBootPartition(n.disk, bootJoin)
	if err != nil || data == nil {
		return err
	}
	if err := durable.Replace(joinYAML, data, 0o600); err != nil {
		return err
	}
	return editBootPartition(n.disk, func(v *fat.Volume) error { return v.Remove(bootJoin) })
}

// readFile reads a file; nil if it is not there. One that cannot be read is an error.
func readFile(name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// readOptional reads a file of the kernel's or of /run; nil if it is not there or not
// readable.
func readOptional(name string) []byte {
	data, _ := readFile(name)
	return data
}

// readRecord reads the hash of the seed that was last taken over; "" if there is none.
func readRecord(name string) (string, error) {
	data, err := readFile(name)
	if data == nil || err != nil {
		return "", err
	}
	hash := strings.TrimSpace(string(data))
	if !isHex(hash, 64) {
		return "", fmt.Errorf("%s: damaged: want 64 hex digits in its %d bytes", name, len(data))
	}
	return hash, nil
}

// isHex says whether s is so many hex digits.
func isHex(s string, digits int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == digits
}

// identify gives the node its machine id and host name.
func (n *node) identify() error {
	id, idErr := machineIDOf(machineID, n.persist)
	return errors.Join(
		idErr,
		os.WriteFile(etcDir+"/machine-id", []byte(id+"\n"), 0o644),
		n.rename(n.config.Hostname),
	)
}

// machineIDOf is the machine id in a file. Where there is none, it is a new one, which is
// kept there if keep says so. One that cannot be read stays: the node has another id during
// this boot, and says so. One of which only a torn rest is there is made anew, and said.
func machineIDOf(name string, keep bool) (id string, err error) {
	data, err := readFile(name)
	if id = strings.TrimSpace(string(data)); err == nil && isHex(id, 32) {
		return id, nil
	}
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("machine id: %w", err)
	}
	id = hex.EncodeToString(raw)
	if err != nil {
		return id, fmt.Errorf("machine id: another one during this boot, as the node's own cannot be read: %w", err)
	}
	if !keep {
		return id, nil
	}
	if err := durable.Replace(name, []byte(id+"\n"), 0o644); err != nil {
		return id, fmt.Errorf("machine id: %w", err)
	}
	if data != nil {
		return id, fmt.Errorf("machine id: a new one, as %s was damaged: want 32 hex digits in its %d bytes", name, len(data))
	}
	return id, nil
}

// startClock keeps the clock from starting before this release was made, or before
// the last time that the node remembers.
func (n *node) startClock() error {
	_, err := clock.SetFloor(clock.System{}, clock.NodePaths.Saved, imageTime())
	return err
}

// startEntropy puts the last boot's seed to use. A first boot has none, and makes
// one as soon as the kernel has gathered enough.
func (n *node) startEntropy() error {
	if !n.persist {
		return nil
	}
	counted, err := entropy.Load(entropySeed)
	if !counted {
		guard.Go("seed of randomness", func() {
			for errors.Is(n.saveEntropy(), entropy.ErrNotReady) {
				time.Sleep(time.Minute)
			}
		})
	}
	return err
}

// saveEntropy writes a new seed.
func (n *node) saveEntropy() error {
	if !n.persist {
		return nil
	}
	return entropy.Save(entropySeed)
}

// imageTime is the time of the commit that this release was built from.
func imageTime() time.Time {
	facts, err := osrelease.Read(osrelease.File)
	if err != nil {
		return time.Time{}
	}
	return facts.Time
}
