package serve

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/workload"
)

// metricsLimit bounds one scrape; Prometheus gives up after as long.
const metricsLimit = 10 * time.Second

// metrics are the facts of Status and List as Prometheus has them, made anew for
// each scrape: nothing is counted or kept in between.
type metrics struct {
	machine    machine.Machine
	node       *identity.Node
	containers func() Containers
}

func metricsHandler(machine machine.Machine, node *identity.Node, containers func() Containers) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&metrics{machine, node, containers})
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: metricsLimit})
}

// Describe says nothing: labels come and go with services and containers.
func (*metrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads everything once.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	// labels are pairs of name and value.
	put := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		var names, values []string
		for i := 0; i+1 < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, strings.ToValidUTF8(labels[i+1], "?"))
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("kogge_"+name, help, names, nil), kind, value, values...)
	}
	gauge := func(name, help string, value float64, labels ...string) {
		put(prometheus.GaugeValue, name, help, value, labels...)
	}
	counter := func(name, help string, value float64, labels ...string) {
		put(prometheus.CounterValue, name, help, value, labels...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), metricsLimit)
	defer cancel()
	s := m.machine.Status(ctx)
	gauge("node_info", "What runs on this node; always 1.", 1, "release", s.Boot.Version, "slot", s.Boot.Slot, "board", s.Boot.Board, "kernel", s.Kernel)
	gauge("boot_trial", "1 while the running slot has not proven itself.", truth(s.Boot.Trial))
	for _, state := range []string{"pending", "good", "bad"} {
		gauge("boot_assessment", "1 for the boot assessment: pending, good or bad.", truth(s.Boot.Assessment == state), "state", state)
	}
	gauge("uptime_seconds", "Time since the kernel started.", float64(s.UptimeSeconds))
	gauge("clock_synchronized", "1 if time servers agree on the clock.", truth(s.Clock.Sure))
	gauge("certificate_expires_timestamp_seconds", "When the node's certificate expires, in seconds since 1970.", float64(m.node.Certificate().Leaf.NotAfter.Unix()))
	gauge("memory_total_bytes", "Memory of the node.", float64(s.Memory.Total))
	gauge("memory_available_bytes", "Memory that is available to programs.", float64(s.Memory.Available))
	gauge("state_total_bytes", "Size of the file system STATE.", float64(s.State.Total))
	gauge("state_available_bytes", "Room on STATE.", float64(s.State.Available))
	gauge("state_total_files", "Files that STATE can have.", float64(s.State.Files))
	gauge("state_available_files", "Files that STATE can have beside those that are there.", float64(s.State.FilesAvailable))
	gauge("degraded", "Parts of the machine that do not work.", float64(len(s.Degraded)))
	for _, one := range s.Services {
		gauge("service_running", "1 if the service runs.", truth(one.State == "running"), "service", one.Name)
		counter("service_starts_total", "Starts of the service since boot.", float64(one.Starts), "service", one.Name)
	}
	keeper := m.containers()
	gauge("containerd_up", "1 if the containers are known.", truth(keeper != nil && keeper.Snapshot().Trouble == ""))
	if keeper == nil {
		return
	}
	groups := m.machine.Groups()
	for _, u := range keeper.Snapshot().Units {
		gauge("container_running", "1 if the container runs.", truth(u.State == workload.Running), "container", u.ID, "image", u.Image)
		counter("container_restarts_total", "Starts of the container after the first, since the agent started.", float64(u.Restarts), "container", u.ID)
		if u.Health.State != "" {
			gauge("container_healthy", "1 if the container's health check says so.", truth(u.Health.State == workload.Healthy), "container", u.ID)
		}
		if used, ok := groups.Of(m.machine.ContainerGroup(u.Instance)); ok {
			gauge("container_memory_bytes", "Memory of the container, its page cache included.", float64(used.Memory), "container", u.ID)
			counter("container_cpu_seconds_total", "CPU time of the container since its start.", used.CPU.Seconds(), "container", u.ID)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
