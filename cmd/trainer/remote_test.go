package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/data/arrowset"
)

// TestRemoteSets gives the address of a data set to every command that takes a folder of one: what comes out is the same.
func TestRemoteSets(t *testing.T) {
	dir := smallData(t, "--shard-mib", "1")
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer srv.Close()
	address, work := srv.URL+"/manifest.json", t.TempDir()
	cache := filepath.Join(work, "cache")
	same := func(what string, args func(data, out string) []string) {
		t.Run(what, func(t *testing.T) {
			near, far := filepath.Join(work, what+".near"), filepath.Join(work, what+".far")
			code, wantOut, errs := trainer(t, args(dir, near)...)
			require.Zero(t, code, errs)
			code, gotOut, errs := trainer(t, append(args(address, far), "--cache", cache)...)
			require.Zero(t, code, errs)
			require.Contains(t, errs, address+": 1 of its 1 files, ")
			if what == "show" {
				var want, got dataOverview
				require.NoError(t, json.Unmarshal([]byte(wantOut), &want))
				require.NoError(t, json.Unmarshal([]byte(gotOut), &got))
				require.Equal(t, address, got.Path)
				got.Path = want.Path
				require.Equal(t, want, got)
				return
			}
			if info, err := os.Stat(near); err == nil && info.IsDir() {
				want, err := arrowset.Open(near)
				require.NoError(t, err)
				defer want.Close()
				got, err := arrowset.Open(far)
				require.NoError(t, err)
				defer got.Close()
				require.Equal(t, want.Manifest().Shards, got.Manifest().Shards)
				return
			}
			want, err := os.ReadFile(near)
			require.NoError(t, err)
			got, err := os.ReadFile(far)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
	same("show", func(data, _ string) []string { return []string{"data", "show", data, "--json", "--sheet", ""} })
	same("tokenizer", func(data, out string) []string {
		return []string{"data", "tokenizer", "train", "--data", data, "--size", "520", "--out", out}
	})
	same("filter", func(data, out string) []string {
		return []string{"data", "filter", data, "--where", "style=noto", "--out", out}
	})
	same("preview", func(data, out string) []string {
		return []string{"data", "preview", "clip-emoji", "--data", data, "--n", "2", "--out", out}
	})
	same("check", func(data, out string) []string { return []string{"data", "check", data, "--fix", "--out", out} })

	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"data", "show", srv.URL + "/elsewhere/manifest.json"}, "not the address of a data set: " + srv.URL + "/elsewhere/manifest.json: 404 Not Found"},
		{[]string{"data", "tokenizer", "train", "--data", address, "--split", "trian", "--size", "520", "--out", filepath.Join(work, "v")}, `no such split: "trian"; it has`},
		{[]string{"data", "show", address, "--cache-size", "0.0000001"}, "make it larger (--cache-size)"},
	} {
		code, _, errs := trainer(t, append(c.args, "--cache", cache)...)
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, c.want)
	}
}
