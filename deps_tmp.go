package diptych
import (
	_ "github.com/apache/arrow/go/v17/arrow/ipc"
	_ "github.com/chewxy/hm"
	_ "github.com/goccy/go-yaml"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/mmcloughlin/avo/build"
	_ "github.com/schollz/progressbar/v3"
	_ "github.com/spf13/cobra"
	_ "github.com/stretchr/testify/require"
	_ "golang.org/x/image/font"
	_ "golang.org/x/sys/cpu"
	_ "golang.org/x/text/unicode/norm"
	_ "gonum.org/v1/plot"
	_ "gorgonia.org/gorgonia"
	_ "gorgonia.org/tensor"
)
