package train

import "diptych/ops"

// sumKind names in a profile the clearing of gradient slabs and the sums of lanes and workers.
const sumKind = "sum of lanes"

// StartProfile makes the updates that follow note where their time goes.
func (t *Trainer) StartProfile() {
	t.profile = &ops.Profile{}
	if t.global != nil {
		t.global.SetProfile(t.profile)
	}
	for _, w := range t.workers {
		w.run.Profile = &ops.Profile{}
	}
}

// StopProfile ends what StartProfile began and returns what the updates took, summed over workers.
func (t *Trainer) StopProfile() []ops.StepProfile {
	all := &ops.Profile{}
	for _, w := range t.workers {
		all.Merge(w.run.Profile)
		w.run.Profile = nil
	}
	all.Merge(t.profile)
	t.profile = nil
	if t.global != nil {
		t.global.SetProfile(nil)
	}
	return all.Steps()
}
