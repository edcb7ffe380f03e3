// Command asmgen writes the AVX-512 kernels of package kernel: for each group an assembly file and its Go declarations.
// go generate runs it in the package's folder; the output is committed, so that building needs no generator.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
	"github.com/mmcloughlin/avo/reg"
)

// groups names every pair of files <name>_amd64.s and <name>_stub_amd64.go, and what writes its functions.
var groups = []struct {
	name  string
	write func(*build.Context)
}{
	{"gemm", gemm},
	{"bf16", bf16},
	{"attention", attention},
	{"vec", vec},
	{"vecavx2", vecAVX2},
	{"peak", peak},
	{"gemmavx2", gemmAVX2},
}

func main() {
	for _, g := range groups {
		if err := generate(".", g.name, g.write); err != nil {
			fmt.Fprintf(os.Stderr, "asmgen: %s: %v\n", g.name, err)
			os.Exit(1)
		}
	}
}

func generate(dir, name string, write func(*build.Context)) error {
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
	cfg := printer.Config{Name: "asmgen", Argv: []string{"asmgen"}, Pkg: "kernel"}
	for _, out := range []struct {
		path  string
		print printer.Printer
	}{
		{name + "_amd64.s", printer.NewGoAsm(cfg)},
		{name + "_stub_amd64.go", printer.NewStubs(cfg)},
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

// z are the 512-bit registers by number.
var z = [32]reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11,
	reg.Z12, reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24,
	reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31}

// align asks the assembler to begin the next instruction at a multiple of n bytes; avo has no name for it.
func align(c *build.Context, n uint8) {
	c.Instruction(&ir.Instruction{Opcode: "PCALIGN", Operands: []operand.Op{operand.U8(n)}})
}
