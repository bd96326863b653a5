package machine

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/agent/api/kogge/v1"
)

// Services are the groups of PID 1, of the node's services and of the containers' shims;
// see init/cgroup.
func (c Groups) Services() []string {
	groups := []string{"init"}
	entries, err := os.ReadDir(filepath.Dir(c.file("system/any", "memory", "", "")))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			groups = append(groups, path.Join("system", e.Name()))
		}
	}
	const shims = "workload/.shims"
	if _, ok := c.Of(shims); ok {
		groups = append(groups, shims)
	}
	return groups
}

// NodeUse is what all of the node has used since its kernel started, and how long that
// is.
func NodeUse() (time.Duration, Use, error) {
	var u Use
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, u, fmt.Errorf("clock: %w", err)
	}
	stat, err := os.ReadFile("/proc/stat")
	if err == nil {
		u.CPU, err = busy(string(stat))
	}
	if err != nil {
		return 0, u, fmt.Errorf("/proc/stat: %w", err)
	}
	var m apiv1.Memory
	if err := memory("/proc/meminfo", &m); err != nil {
		return 0, u, err
	}
	u.Memory, u.Limit = m.Total-m.Available, m.Total
	u.Processes = threads(ReadLine("/proc/loadavg"))
	u.MostOfThem = limitOf("/proc/sys/kernel/threads-max")
	u.Received, u.Sent = traffic("/proc/net/dev", func(name string) bool {
		_, err := os.Stat(filepath.Join("/sys/class/net", name, "device")) // a real one
		return err == nil
	})
	return time.Duration(now.Nano()), u, nil
}

// busy is the time that processors were not idle, of the first line of /proc/stat:
// "cpu user nice system idle iowait irq softirq steal …", in hundredths of a second.
//
// Source: proc_stat(5).
func busy(stat string) (time.Duration, error) {
	f := strings.Fields(stat)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("no processors in %.40q", stat)
	}
	var sum int64
	for i, text := range f[1:9] {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, err
		}
		if i != 3 && i != 4 { // idle, and idle until a disk answers
			sum += n
		}
	}
	return time.Duration(sum) * 10 * time.Millisecond, nil
}

// threads is how many there are, of a line like "0.20 0.18 0.12 1/80 11206".
func threads(loadavg string) uint64 {
	f := strings.Fields(loadavg)
	if len(f) < 4 {
		return 0
	}
	_, all, _ := strings.Cut(f[3], "/")
	n, _ := strconv.ParseUint(all, 10, 64) // 0 is not known
	return n
}
