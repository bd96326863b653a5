package workload

import (
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
