package compose

import (
	"strings"
	"testing"

	"kogge.example/init/nodeconfig"
)

// TestPublic puts a secret into bad lines of a Compose file: what a node's log says of them
// has the place, and not the secret.
func TestPublic(t *testing.T) {
	const secret = "hunter2-Zx9"
	service := func(line string) string { return "services:\n  web:\n    image: x\n    " + line + "\n" }
	bad := 0
	for _, text := range []string{
		service("environment: [\"=" + secret + "\"]"), service("environment: " + secret), service("environment:\n      PASSWORD " + secret), service("environment: {P: [" + secret + "]}"),
		service("environment: {P: {a: " + secret + "}}"), service("environment: {\"a=b\": " + secret + "}"), service("environment: [" + secret + "]"), service("environment: {P: \"" + secret + "\\0\"}"),
		service("environment: {P: '" + secret), service("environmen: {P: " + secret + "}"), service("command: {a: " + secret + "}"), service("command: \"'" + secret + "\""), service("labels: {\"\": " + secret + "}"),
		service("labels: [\"=" + secret + "\"]"), service("labels: {kogge.example/x: " + secret + "}"), service("ports: [" + secret + "]"), service("ports: [{target: " + secret + "}]"), service("volumes: [\"" + secret + ":/x:y\"]"),
		service("volumes: [{type: " + secret + "}]"), service("secrets: [" + secret + "]"), service("configs: [{source: a, mode: " + secret + "}]"), service("restart: " + secret), service("restart: on-failure:" + secret), service("user: \"" + secret + " x\""),
		service("healthcheck: {test: {a: " + secret + "}}"), service("healthcheck: {interval: " + secret + "}"), service("stop_signal: " + secret), service("platform: " + secret), service("sysctls: {net.x: \"" + secret + "\"}"), service("extra_hosts: [" + secret + "]"),
		service("dns: [" + secret + "]"), service("tmpfs: [\"/x:" + secret + "\"]"), service("devices: [\"a:b:c:" + secret + "\"]"), service("ulimits: {nofile: " + secret + "}"), service("mem_limit: " + secret), service("working_dir: " + secret),
		service("depends_on: [" + secret + "]"), service("networks: [" + secret + "]"), service("network_mode: " + secret), service("logging: {driver: " + secret + "}"), service("image: " + secret + ":::"), service(secret),
		"services: {web: {image: x}}\nsecrets:\n  token: {content: {a: " + secret + "}}\n", "services: {web: {image: x}}\nsecrets:\n  token: " + secret + "\n",
		"services: {web: {image: x}}\nconfigs:\n  c:\n    content: |\n      a\n    conten: |\n      " + secret + "\n", "services: " + secret, secret, "a: b: " + secret, "services: {web: {image: x, command: [*" + secret + "]}}",
		"services:\n  web:\n    image: x\n    build: {args: {P: " + secret + "}}\n",
	} {
		_, warnings, err := Parse("shop", "shop.yaml", []byte(text))
		if err != nil {
			bad++
			public := nodeconfig.Public(err)
			if strings.Contains(public, "hunter2") || strings.Contains(public, "Zx9") || !strings.Contains(public, "shop.yaml:") {
				t.Errorf("%q: %s", text, public)
			}
		}
		for _, w := range warnings {
			if public := nodeconfig.Public(w); strings.Contains(public, "hunter2") {
				t.Errorf("%q: warning: %s", text, public)
			}
		}
	}
	if bad < 40 {
		t.Errorf("only %d texts are wrong", bad)
	}
}
