package workload

import "time"

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
