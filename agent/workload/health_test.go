package workload

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func TestHealthComplete(t *testing.T) {
	for _, tc := range []struct {
		name       string
		own, image Health
		want       Health
		checked    bool
	}{
		{name: "neither has one"},
		{name: "off", own: Health{Off: true}, image: Health{Test: []string{"a"}}},
		{name: "off in the image", image: Health{Off: true}},
		{
			name: "defaults", own: Health{Test: []string{"a"}}, checked: true,
			want: Health{Test: []string{"a"}, Interval: 30 * time.Second, Timeout: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 3},
		},
		{
			name: "the image's, more often", own: Health{Interval: time.Second}, checked: true,
			image: Health{Test: []string{"b"}, Interval: time.Minute, Timeout: 7 * time.Second, StartPeriod: 9 * time.Second, Retries: 1},
			want: Health{Test: []string{"b"}, Interval: time.Second, Timeout: 7 * time.Second, StartPeriod: 9 * time.Second,
				StartInterval: 5 * time.Second, Retries: 1},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, checked := tc.own.Complete(tc.image)
			if checked != tc.checked || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, %v", got, checked)
			}
		})
	}
}

func TestParseHealth(t *testing.T) {
	for config, want := range map[string]string{
		`{}`:                          "test [], off false",
		`{"config":{"Cmd":["/app"]}}`: "test [], off false",
		`{"config":{"Healthcheck":{"Test":["NONE"]}}}`:                                     "test [], off true",
		`{"config":{"Healthcheck":{"Test":["CMD","/app","-check"]}}}`:                      "test [/app -check], off false",
		`{"config":{"Healthcheck":{"Test":["CMD-SHELL","curl localhost || exit 1"]}}}`:     "test [/bin/sh -c curl localhost || exit 1], off false",
		`{"config":{"Shell":["/bin/ash","-ec"],"Healthcheck":{"Test":["CMD-SHELL","x"]}}}`: "test [/bin/ash -ec x], off false",
		`{"config":{"Healthcheck":{"Test":["CMD-SHELL","exit 0","extra"]}}}`:               "test [/bin/sh -c exit 0 extra], off false",
		`{"config":{"Healthcheck":{"Test":["CMD-SHELL"]}}}`:                                "error",
		`{"config":{"Healthcheck":{"Test":["/app"]}}}`:                                     `error`,
		`{"config":{"Healthcheck":{"Test":["CMD"]}}}`:                                      `error`,
		`no JSON`: `error`,
	} {
		h, err := ParseHealth([]byte(config))
		got := fmt.Sprintf("test %v, off %v", h.Test, h.Off)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %s (%v), want %s", config, got, err, want)
		}
	}
}

// FuzzParseHealth: what an image says may be anything, and is a check or an error.
func FuzzParseHealth(f *testing.F) {
	f.Add([]byte(`{"config":{"Healthcheck":{"Test":["CMD-SHELL","x"],"Interval":1000000000,"Retries":3}}}`))
	f.Add([]byte(`{"config":{"Healthcheck":{"Test":["NONE"],"Interval":-1}}}`))
	f.Add([]byte(`{"config":{"Healthcheck":{"Interval":1e99}}}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		image, err := ParseHealth(config)
		if err != nil {
			return
		}
		h, checked := Health{}.Complete(image)
		if checked && (len(h.Test) == 0 || h.Interval <= 0 || h.Timeout <= 0 || h.StartPeriod < 0 || h.StartInterval <= 0 || h.Retries <= 0) {
			t.Errorf("%+v", h)
		}
	})
}
