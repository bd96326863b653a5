package workload

import (
	"encoding/json"
	"fmt"
	"time"
)

// Complete fills in what h leaves out, and image is the check of its image, if it
// has one. The second result is false for a container without a check.
func (h Health) Complete(image Health) (Health, bool) {
	if h.Off || len(h.Test) == 0 && (image.Off || len(image.Test) == 0) {
		return Health{}, false
	}
	if len(h.Test) == 0 {
		h.Test = image.Test
	}
	h.Interval = first(h.Interval, image.Interval, DefaultHealthInterval)
	h.Timeout = first(h.Timeout, image.Timeout, DefaultHealthTimeout)
	h.StartPeriod = first(h.StartPeriod, image.StartPeriod)
	h.StartInterval = first(h.StartInterval, image.StartInterval, DefaultHealthStartInterval)
	h.Retries = first(h.Retries, image.Retries, DefaultHealthRetries)
	return h, true
}

// first is the first of all that is above zero, or zero.
func first[T int | time.Duration](all ...T) T {
	for _, v := range all {
		if v > 0 {
			return v
		}
	}
	return 0
}

// ParseHealth reads the health check out of an image's configuration; none is zero.
// Times are in nanoseconds.
//
// Source: HealthcheckConfig in github.com/moby/docker-image-spec/specs-go/v1.
func ParseHealth(config []byte) (Health, error) {
	var image struct {
		Config struct {
			Healthcheck struct {
				Test                                          []string
				Interval, Timeout, StartPeriod, StartInterval time.Duration
				Retries                                       int
			}
			Shell []string
		} `json:"config"`
	}
	if err := json.Unmarshal(config, &image); err != nil {
		return Health{}, err
	}
	check := image.Config.Healthcheck
	h := Health{
		Interval: check.Interval, Timeout: check.Timeout, StartPeriod: check.StartPeriod,
		StartInterval: check.StartInterval, Retries: check.Retries,
	}
	if len(check.Test) == 0 {
		return h, nil
	}
	switch kind, rest := check.Test[0], check.Test[1:]; {
	case kind == "NONE":
		return Health{Off: true}, nil
	case kind == "CMD" && len(rest) > 0:
		h.Test = rest
	case kind == "CMD-SHELL" && len(rest) > 0: // what is behind the line is $0 and so on
		shell := image.Config.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		h.Test = append(append([]string{}, shell...), rest...)
	default:
		return Health{}, fmt.Errorf("%q is neither NONE, CMD nor CMD-SHELL", check.Test)
	}
	return h, nil
}
