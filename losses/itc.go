package losses

import "diptych/ops"

// itc is CLIP's symmetric contrastive loss (Radford et al. 2021, §2.3 and figure 3), image-text contrast in ALBEF's words,
// over the N pairs of the global batch:
//
//	L = ½(mean_i CE(t·x_i·Yᵀ, q_i) + mean_j CE(t·y_j·Xᵀ, q_j))    t = exp(logScale)
//
// q_i is the target of row i: its own pair; with groupTargets all pairs of its group in equal parts; with label smoothing ε
// (1-ε) of that plus ε/N everywhere. L is in nats. The gradient is that of the whole batch, with no factor of the number of
// workers (open_clip's default gives 1/W of it; spec 2.8).
func itc(g *ops.Graph, f *features, c Config) *ops.Node {
	return g.InfoNCE(f.x, f.y, f.logScale, f.groups, ops.ITCOpt{Smoothing: c.LabelSmoothing, GroupTargets: c.GroupTargets})
}
