// Package tests holds the promises of the whole system: who may import whom, runs that are killed and go on to the same bits,
// results that do not depend on workers, threads or memory, and the command as a user meets it.
package tests

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mayImport is the order of rooms: each may import those named, with what lies below them only where it is named too.
// Leaves import no other room.
var mayImport = map[string][]string{
	"internal/addr": {}, "internal/kernel": {}, "internal/machine": {}, "internal/sheet": {}, "internal/runlog": {},
	"internal/gradcheck": {}, "data/batch": {}, "checkpoints/safetensors": {},
	"internal/kernel/asmgen": {},
	"internal/golden":        {"checkpoints/safetensors"},
	"checkpoints/torchfile":  {"checkpoints/safetensors"},
	"ops":                    {"internal/kernel", "internal/addr", "internal/gradcheck"},
	"model":                  {"ops", "internal/kernel", "internal/addr"},
	"losses":                 {"ops", "model", "data/batch", "internal/addr", "internal/kernel"},
	"optim":                  {"internal/kernel"},
	"data/arrowset":          {"data/arrowset/flatbuf"},
	"data/arrowset/flatbuf":  {},
	"data/demo":              {"data/arrowset"},
	"data/remote":            {"data/arrowset", "internal/runlog"},
	"data/demo/vocab":        {},
	"data/convert":           {"data/arrowset", "data/arrowset/flatbuf", "data/transform", "internal/addr", "internal/runlog"},
	"data/check":             {"data/arrowset", "data/tokenizer", "data/transform", "internal/addr"},
	"data/check/dirty":       {"data/arrowset"},
	"data/edit":              {"data/arrowset", "data/transform", "internal/addr"},
	"data/transform":         {"internal/addr", "data/transform/jpeg"},
	"data/transform/jpeg":    {},
	"data/transform/asmgen":  {},
	"data/tokenizer":         {"data/demo/vocab", "data/tokenizer/ftfy", "internal/addr"},
	"data/tokenizer/ftfy":    {},
	"data/tokenizer/clip":    {},
	"data/tokenizer/bert":    {},
	"data":                   {"data/arrowset", "data/batch", "data/tokenizer", "data/transform", "internal/addr"},
	"eval":                   {"model", "data", "data/arrowset", "data/transform", "internal/kernel", "internal/addr"},
	"checkpoints":            {"checkpoints/safetensors"},
	"checkpoints/bridge":     {"checkpoints/safetensors", "checkpoints/torchfile", "model", "data/transform", "data/tokenizer"},
	"train":                  {"model", "losses", "optim", "ops", "data", "data/batch", "checkpoints", "internal/kernel", "internal/addr"},
}

// onlyIn names modules that one place each may import.
var onlyIn = map[string][]string{
	"gorgonia.org/":                {"ops"},
	"github.com/chewxy/hm":         {"ops"},
	"github.com/apache/arrow/":     {"data/arrowset", "data/convert"},
	"github.com/mmcloughlin/avo":   {"internal/kernel/asmgen", "data/transform/asmgen"},
	"github.com/spf13/cobra":       {"cmd/trainer"},
	"github.com/minio/":            {"data/remote"},
	"github.com/stretchr/testify/": {"internal/gradcheck"}, // tests aside
}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestImportOrder(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	seen := 0
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			break
		} else {
			require.NoError(t, err)
		}
		seen++
		room := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, "diptych"), "/")
		allowed, ruled := mayImport[room]
		for _, imp := range p.Imports {
			if other, ok := strings.CutPrefix(imp, "diptych/"); ok && ruled {
				require.Contains(t, allowed, other, "%s must not import %s", room, other)
			}
			for prefix, rooms := range onlyIn {
				if strings.HasPrefix(imp, prefix) {
					require.Contains(t, rooms, room, "%s must not import %s", room, imp)
				}
			}
		}
		if !ruled {
			require.True(t, room == "tests" || strings.HasPrefix(room, "cmd/") || strings.HasPrefix(room, "experiments") || strings.Contains(room, "/gen") || strings.Contains(room, "recipe"),
				"room %s has no rule", room)
		}
	}
	require.Greater(t, seen, len(mayImport), "rules without a room")
}
