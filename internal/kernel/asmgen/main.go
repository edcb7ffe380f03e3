// Command asmgen writes the AVX-512, AVX2 and NEON kernels of package kernel: for each group an assembly file and its Go declarations.
// go generate runs it in the package's folder; the output is committed, so that building needs no generator.
package main

import (
	"errors"
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

// group is a pair of files <name>_<arch>.s and <name>_stub_<arch>.go.
type group struct {
	name, arch string
	write      func(*build.Context) // its functions
}

var groups = []group{
	{"gemm", "amd64", gemm},
	{"bf16", "amd64", bf16},
	{"attention", "amd64", attention},
	{"vec", "amd64", vec},
	{"vecavx2", "amd64", vecAVX2},
	{"random", "amd64", randomNumbers},
	{"peak", "amd64", peak},
	{"gemmavx2", "amd64", gemmAVX2},
	{"vecneon", "arm64", vecNEON},
}

// files returns the names of both.
func (g group) files() (assembly, stubs string) {
	return g.name + "_" + g.arch + ".s", g.name + "_stub_" + g.arch + ".go"
}

func main() {
	for _, g := range groups {
		if err := g.generate("."); err != nil {
			fmt.Fprintf(os.Stderr, "asmgen: %s: %v\n", g.name, err)
			os.Exit(1)
		}
	}
}

func (g group) generate(dir string) error {
	c := build.NewContext()
	c.ConstraintExpr(g.arch + ",!noasm")
	g.write(c)
	f, err := c.Result()
	if err != nil {
		return err
	}
	cfg := printer.Config{Name: "asmgen", Argv: []string{"asmgen"}, Pkg: "kernel"}
	var assembly []byte
	if g.arch == "arm64" {
		assembly = []byte(translateNEON(f))
	} else {
		if err := pass.Compile.Execute(f); err != nil {
			return err
		}
		if assembly, err = printer.NewGoAsm(cfg).Print(f); err != nil {
			return err
		}
	}
	stubs, err := printer.NewStubs(cfg).Print(f)
	if err != nil {
		return err
	}
	to, declarations := g.files()
	return errors.Join(os.WriteFile(filepath.Join(dir, to), assembly, 0o644), os.WriteFile(filepath.Join(dir, declarations), stubs, 0o644))
}

// z are the 512-bit registers by number.
var z = [32]reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11,
	reg.Z12, reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24,
	reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31}

// align asks the assembler to begin the next instruction at a multiple of n bytes; avo has no name for it.
func align(c *build.Context, n uint8) {
	c.Instruction(&ir.Instruction{Opcode: "PCALIGN", Operands: []operand.Op{operand.U8(n)}})
}
