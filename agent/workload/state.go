package workload

// State is where a wanted container stands. How it gets from one state to another is
// drawn at keeper.Unit.
type State string

// The states of a container.
const (
	Waiting  State = "waiting"
	Pending  State = "pending"
	Starting State = "starting"
	Running  State = "running"
	Backoff  State = "backoff"
	Ended    State = "ended"
	Stopping State = "stopping"
	Stopped  State = "stopped"

	Replacing State = "replacing"
)

// How the reason of a container begins that waits for another, whose ID follows: DependsOn
// where that is in vain, because that one was stopped, or has ended, and somebody has to do
// something; WaitsFor where it may come to it by itself.
const (
	DependsOn = "depends on "
	WaitsFor  = "waits for "
)

// ToldAt is in the reason of a container that is to stop, or to start once it has: the name of
// an instance stands before it, the time behind it.
const ToldAt = " was told to stop at "

// Want is what an operator wants of one container.
type Want string

// What can be wanted of a container.
const (
	// WantStopped: it is stopped, by its own signal and grace, and left so until
	// something else is wanted, or until this agent is started anew.
	WantStopped Want = "stopped"
	// WantStarted: it runs; if it does not, it is started now, whatever it depends on
	// and however long its pause would still be.
	WantStarted Want = "started"
	// WantRestarted: it is stopped and started, and so is what goes by it (see
	// [Dependency]).
	WantRestarted Want = "restarted"
)

// HealthState is what the health check of a running container says. It is a report, as
// Compose has it: nobody restarts a container because it is unhealthy.
type HealthState string

// The states of a health check.
const (
	Unchecked      HealthState = "" // it has none, or does not run
	HealthStarting HealthState = "starting"
	Healthy        HealthState = "healthy"
	Unhealthy      HealthState = "unhealthy"
)
