package kernel

// PatchesU8 cuts square pictures into rows of patches and normalises them: pixels (n, side, side, 3), bytes, to out
// (n·(side/patch)², 3·patch²), patches from the top left row by row, columns in the order channel, row, column. A value is
// (u/255 - mean)/std of its channel, each operation rounded, as torchvision's ToTensor and Normalize do.
func PatchesU8[T Float](p *Pool, out []T, pixels []uint8, n, height, width, patch int, mean, std [3]float32) {
	q := own(p)
	defer disown(p, q)
	table := scratch[T](q, 0, slotA, 3*256)
	for c := range 3 {
		for v := range 256 {
			table[c*256+v] = (T(v)/255 - T(mean[c])) / T(std[c])
		}
	}
	rows, cols := height/patch, width/patch
	q.For(n*rows, 1, func(lo, hi, _ int) {
		for i := lo; i < hi; i++ { // one row of patches of a picture
			for px := range cols {
				dst := out[(i*cols+px)*3*patch*patch:][:3*patch*patch]
				for y := range patch {
					from := ((i/rows*height+i%rows*patch+y)*width + px*patch) * 3
					src := pixels[from : from+3*patch]
					for c := range 3 {
						line := dst[(c*patch+y)*patch:][:patch]
						values := table[c*256:][:256]
						for x := range line {
							line[x] = values[src[3*x+c]]
						}
					}
				}
			}
		}
	})
}

// PatchesF32 cuts pictures that are normalised already: pixels (n, 3, height, width) to the same rows as PatchesU8.
func PatchesF32[T Float](p *Pool, out []T, pixels []float32, n, height, width, patch int) {
	rows, cols := height/patch, width/patch
	p.For(n*rows, 1, func(lo, hi, _ int) {
		for i := lo; i < hi; i++ {
			for px := range cols {
				dst := out[(i*cols+px)*3*patch*patch:][:3*patch*patch]
				for c := range 3 {
					for y := range patch {
						from := ((i/rows*3+c)*height+i%rows*patch+y)*width + px*patch
						line := dst[(c*patch+y)*patch:][:patch]
						for x, v := range pixels[from : from+patch] {
							line[x] = T(v)
						}
					}
				}
			}
		}
	})
}
