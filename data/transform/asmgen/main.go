// Command asmgen writes the AVX2 code of package transform and of its JPEG decoder: for each an assembly file and its Go
// declarations. go generate runs it in package transform's folder; the output is committed, so that building needs no generator.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
	"github.com/mmcloughlin/avo/reg"
)

// groups names every pair of files avx2_amd64.s and avx2_stub_amd64.go by folder and package, and what writes its functions.
var groups = []struct {
	dir, pkg string
	write    func(*build.Context)
}{
	{".", "transform", resize},
	{"jpeg", "jpeg", jpeg},
}

const (
	assembly = "avx2_amd64.s"
	stubs    = "avx2_stub_amd64.go"
)

func main() {
	for _, g := range groups {
		if err := generate(g.dir, g.pkg, g.write); err != nil {
			fmt.Fprintf(os.Stderr, "asmgen: %s: %v\n", g.pkg, err)
			os.Exit(1)
		}
	}
}

func generate(dir, pkg string, write func(*build.Context)) error {
	c := build.NewContext()
	c.ConstraintExpr("amd64,!noasm")
	write(c)
	f, err := c.Result()
	if err != nil {
		return err
	}
	if err := pass.Compile.Execute(f); err != nil {
		return err
	}
	cfg := printer.Config{Name: "asmgen", Argv: []string{"asmgen"}, Pkg: pkg}
	for _, out := range []struct {
		path  string
		print printer.Printer
	}{
		{assembly, printer.NewGoAsm(cfg)},
		{stubs, printer.NewStubs(cfg)},
	} {
		b, err := out.print.Print(f)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, out.path), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// begin starts a function that keeps no pointer.
func begin(c *build.Context, name, signature, doc string) {
	c.Function(name)
	c.SignatureExpr(signature)
	c.Pragma("noescape")
	c.Doc(name + " " + doc)
}

func end(c *build.Context) {
	c.VZEROUPPER()
	c.RET()
}

func param(c *build.Context, name string) reg.GPVirtual {
	r := c.GP64()
	c.Load(c.Param(name), r)
	return r
}

func at(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// table is 32 bytes of read-only data.
func table(c *build.Context, name string, b [32]byte) operand.Mem {
	m := c.StaticGlobal(name)
	c.DataAttributes(8 | 16) // RODATA, NOPTR
	for i := 0; i < 32; i += 8 {
		var v uint64
		for k := range 8 {
			v |= uint64(b[i+k]) << (8 * k)
		}
		c.AddDatum(i, operand.U64(v))
	}
	return m
}

// words repeats two 16-bit numbers.
func words(c *build.Context, name string, lo, hi int) operand.Mem {
	var b [32]byte
	for i := 0; i < 32; i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = byte(lo), byte(lo>>8), byte(hi), byte(hi>>8)
	}
	return table(c, name, b)
}

// lanes repeats 16 bytes.
func lanes(c *build.Context, name string, b [16]byte) operand.Mem {
	var t [32]byte
	copy(t[:], b[:])
	copy(t[16:], b[:])
	return table(c, name, t)
}
