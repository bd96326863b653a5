package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"kogge.example/agent/registry"
)

// layout is an OCI layout in a tar, with one image: annotations are those of its manifest in
// the index. Before that is written, bend may change any of it.
func layout(t *testing.T, annotations map[string]string, bend func(index, manifest, config map[string]any)) []byte {
	t.Helper()
	layer := layerOf(t, "text", tar.Header{Name: "etc/text", Mode: 0o644})
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	put := func(kind string, document any) map[string]any {
		data, ok := document.([]byte)
		if !ok {
			var err error
			data, err = json.Marshal(document)
			must(t, err)
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(data))
		files["blobs/sha256/"+sum] = data
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + sum, "size": len(data)}
	}
	index, manifest := map[string]any{"schemaVersion": 2}, map[string]any{"schemaVersion": 2}
	config := map[string]any{"architecture": runtime.GOARCH, "os": "linux"}
	its := put("layer.v1.tar", layer)
	config["rootfs"] = map[string]any{"type": "layers", "diff_ids": []any{its["digest"]}}
	bend(index, manifest, config)
	manifest["config"], manifest["layers"] = put("config.v1+json", config), []any{its}
	one := put("manifest.v1+json", manifest)
	one["annotations"] = annotations
	index["manifests"] = []any{one}
	var err error
	files["index.json"], err = json.Marshal(index)
	must(t, err)
	return tarOf(t, files)
}

// loadBombs: of an archive nothing is read as a whole that takes much memory.
func loadBombs(t *testing.T, p *puller) {
	name := p.images.host + "/o/bomb:1"
	annotations := map[string]string{"io.containerd.image.name": name}
	long, many := strings.Repeat("x", registry.MaxDocument), make([]struct{}, registry.MaxParts+1)
	before := p.has(t)
	for what, c := range map[string]struct {
		archive []byte
		why     string
	}{
		"a long index":    {layout(t, annotations, func(i, _, _ map[string]any) { i["x"] = long }), "bytes: a node reads"},
		"a long manifest": {layout(t, annotations, func(_, m, _ map[string]any) { m["x"] = long }), "bytes: a node reads"},
		"a long config":   {layout(t, annotations, func(_, _, c map[string]any) { c["x"] = long }), "bytes"},
		"a wide index":    {layout(t, annotations, func(i, _, _ map[string]any) { i["manifest\u017f"] = many }), "parts: a node reads"},
		"a wide manifest": {layout(t, annotations, func(_, m, _ map[string]any) { m["x"] = many }), "parts: a node reads"},
		"a wide config":   {layout(t, annotations, func(_, _, c map[string]any) { c["history"] = many }), "parts: a node reads"},
		"docker's config": {tarOf(t, map[string][]byte{
			"c.json":        []byte(`{"os":"linux","history":[{}` + strings.Repeat(",{}", registry.MaxParts+1) + `]}`),
			"manifest.json": []byte(`[{"Config":"c.json","RepoTags":["` + name + `"],"Layers":[]}]`),
		}), "parts: a node reads"},
		"docker's manifest": {tarOf(t, map[string][]byte{"manifest.json": []byte(`[{}` + strings.Repeat(",{}", registry.MaxParts+1) + `]`)}), "parts: a node reads"},
		"an export":         {tarOf(t, map[string][]byte{"etc/passwd": []byte("root")}), "docker save NAME:TAG"},
	} {
		if _, err := p.engine.Load(t.Context(), bytes.NewReader(c.archive)); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %.300v, want %q", what, err, c.why)
		}
	}
	if now := p.has(t); now != before {
		t.Errorf("there is %q, and was %q", now, before)
	}
	_, err := p.engine.Load(t.Context(), bytes.NewReader(layout(t, annotations, func(_, _, _ map[string]any) {})))
	must(t, err)
	must(t, p.engine.Forget(t.Context(), name))
}
