package workload

// State is where a wanted container stands:
//
//	Waiting ─Begin─▶ Pending ─Ready─▶ Starting ─Started─▶ Running ─Exited─▶ Backoff ─Timer─▶ Starting
//	   │                                 └─StartFailed─▶ Backoff   └─ by its policy ─▶ Ended
//	   ├─Adopted─▶ Running
//	   └─Exited, Begin before NotBefore─▶ Backoff
//
//	Starting ─MustGo─▶ Replacing ─OldRemoved─▶ Starting
//
//	anywhere ─StopAsked─▶ Stopping ─Removed─▶ Stopped ─StartAsked─▶ Starting
//	Running ─RestartAsked─▶ Starting (which takes away what is there)
//
// Pending waits for what the container depends on; a request to start it does not.
// A minute of running forgets the exits. Lost (containerd went away) leads from
// everywhere but Ended and Stopped to Waiting: when it is back, what is found there
// decides, and a stop that was asked for is carried out then.
//
// Replacing takes away an older instance that cannot run beside the new one. Where it
// can, it goes on meanwhile: see [Relief].
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

// HealthState is what the health check of a running container says:
//
//	starting ─Passed─▶ healthy ─Retries × Missed─▶ unhealthy ─Passed─▶ healthy
//	    └─Retries × Missed, those in the start period left out─▶ unhealthy
//
// It is a report, as Compose has it: nobody restarts a container because it is
// unhealthy. What waits for it to be healthy goes on waiting.
type HealthState string

// The states of a health check.
const (
	Unchecked      HealthState = "" // it has none, or does not run
	HealthStarting HealthState = "starting"
	Healthy        HealthState = "healthy"
	Unhealthy      HealthState = "unhealthy"
)
