package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/template"

	"kogge.example/agent/compose"
	"kogge.example/agent/workload"
	"kogge.example/update/golden"
)

// TestComposeKeysPage: the page compose-keys says what the tables of package compose
// say. Its prose is in testdata/compose-keys.tmpl; -update makes the page of both.
func TestComposeKeysPage(t *testing.T) {
	page, err := template.ParseFiles("testdata/compose-keys.tmpl")
	must(t, err)
	var b strings.Builder
	must(t, page.Execute(&b, map[string]string{"Keys": keySections(), "Sysctls": sysctlGroups()}))
	golden.Compare(t, "../pages/compose-keys.md", b.String())
}

// TestComposeNames: what the page says of names is what a file meets.
func TestComposeNames(t *testing.T) {
	const file = "services:\n  %s: {image: x, hostname: %s, container_name: %s, networks: {%s: {aliases: [%s]}}, volumes: ['%[4]s:/x'], configs: ['%[4]s'], secrets: ['%[4]s']}\n" +
		"networks: {%[4]s: {}}\nvolumes: {%[4]s: {}}\nconfigs: {%[4]s: {content: x}}\nsecrets: {%[4]s: {content: x}}\n"
	for _, c := range []struct {
		service, host, container, network, alias, err string
	}{
		{"my-service1", "My-Host.x", "My_Name.1", "My_Net.1-x", "my_service", ""},
		{"my_service", "h", "c", "n", "a", `service name "my_service"`},
		{"Web", "h", "c", "n", "a", `service name "Web"`},
		{"db.1", "h", "c", "n", "a", `service name "db.1"`},
		{"s", "my_host", "c", "n", "a", `hostname "my_host"`},
		{"s", "h", "my db", "n", "a", `container_name: "my db"`},
		{"s", "h", "c", "my data", "a", `network name "my data"`},
		{"s", "h", "c", "n", "my db", `"my db" is not a host name`},
	} {
		_, _, err := compose.Parse("p", "x.yaml", fmt.Appendf(nil, file, c.service, c.host, c.container, c.network, c.alias))
		if err == nil && c.err == "" || err != nil && c.err != "" && strings.Contains(err.Error(), c.err) {
			continue
		}
		t.Errorf("%+v: %v", c, err)
	}
}

// TestImagesPage: the page image-keys says what the table of package workload says. Its prose is
// in testdata/image-keys.tmpl; -update makes the page of both.
func TestImagesPage(t *testing.T) {
	page, err := template.ParseFiles("testdata/image-keys.tmpl")
	must(t, err)
	var keys strings.Builder
	for _, docker := range []bool{false, true} {
		keys.WriteString(map[bool]string{false: "\n## Keys of the OCI's specification\n\n", true: "\n## Keys that Docker adds\n\n"}[docker])
		for _, k := range workload.ImageKeys() {
			if k.Docker == docker {
				keys.WriteString(item("`" + strings.TrimPrefix(k.Path, "config.") + "`: " + k.What))
			}
		}
	}
	var b strings.Builder
	must(t, page.Execute(&b, map[string]string{"Keys": keys.String()}))
	golden.Compare(t, "../pages/image-keys.md", b.String())
}

// keySections are the keys, a line for each, below a heading for each part of a file.
func keySections() string {
	var b strings.Builder
	section := ""
	for _, k := range compose.Keys() {
		top, _, nested := strings.Cut(k.Path, ".")
		if top == "services" && !nested {
			continue
		}
		title := section
		switch {
		case nested && top == "services":
			title = "Keys of a service"
		case section == "":
			title = "Keys at the top"
		case k.Path == "jobs":
			title = "Networks, volumes, configs, secrets and others"
		}
		if title != section {
			section = title
			fmt.Fprintf(&b, "\n## %s\n\n", title)
		}
		b.WriteString(item(keyLine(k)))
	}
	return b.String()
}

// keyLine is a key, what becomes of it, and why or how.
func keyLine(k compose.Key) string {
	line := "`" + strings.ReplaceAll(strings.TrimPrefix(k.Path, "services.*."), ".*", ".NAME") + "`"
	if k.Whole {
		line += " and below"
	}
	if k.Own {
		line += " (Kogge's own)"
	}
	switch k.Verdict {
	case compose.Resolved:
		line += ": by apply"
	case compose.Refused:
		line += ": **refused**"
	default:
		line += ": " + string(k.Verdict)
	}
	if k.Note != "" {
		line += "; " + k.Note
	}
	return line
}

// sysctlGroups are the sysctls that a container can set, a line for each folder.
func sysctlGroups() string {
	groups := make(map[string][]string)
	for _, name := range compose.Sysctls() {
		group := strings.Join(strings.Split(name, ".")[:2], ".")
		if !strings.HasPrefix(name, "net.") {
			group, _, _ = strings.Cut(name, ".")
		}
		groups[group] = append(groups[group], strings.TrimPrefix(name, group+"."))
	}
	var lines []string
	for group, names := range groups {
		lines = append(lines, item(fmt.Sprintf("`%s.`: %s", group, strings.Join(names, ", "))))
	}
	slices.Sort(lines)
	return strings.TrimSuffix(strings.Join(lines, ""), "\n")
}

// item is text as an entry of a list, broken into lines.
func item(text string) string {
	return "- " + strings.ReplaceAll(fill(text, pageWidth-2), "\n", "\n  ") + "\n"
}
