package ops

import "time"

// Profile sums up where the time of runs goes. Programs add to the one that their Run names; it serves one goroutine at a time.
type Profile struct {
	steps []*StepProfile // in the order of their first run
	index map[stepKey]*StepProfile
}

// StepProfile is what all runs of one step took.
type StepProfile struct {
	Kind  string // of the operation: linear, attention, …
	Name  string // the kind with what it works on
	Phase Phase
	Runs  int
	FLOPs int64 // multiplications and additions of products, for the lengths that were run
	Time  time.Duration
}

// Phase is the part of an update that a step belongs to.
type Phase string

// The phases of a profile.
const (
	PhaseForward  Phase = "forward"
	PhaseBackward Phase = "backward"
	PhaseAgain    Phase = "again"  // what is computed a second time because it was not kept; its operations are not counted
	PhaseUpdate   Phase = "update" // what lies outside of the programs: sums of gradients, the optimizer
)

type stepKey struct {
	name  string
	phase Phase
}

// Add notes one run of a step. A nil Profile ignores it.
func (p *Profile) Add(kind, name string, phase Phase, flops int64, d time.Duration) {
	if p == nil {
		return
	}
	s := p.index[stepKey{name, phase}]
	if s == nil {
		if p.index == nil {
			p.index = map[stepKey]*StepProfile{}
		}
		s = &StepProfile{Kind: kind, Name: name, Phase: phase}
		p.index[stepKey{name, phase}] = s
		p.steps = append(p.steps, s)
	}
	s.Runs++
	s.Time += d
	if phase != PhaseAgain {
		s.FLOPs += flops
	}
}

// Steps returns the steps in the order of their first run.
func (p *Profile) Steps() []StepProfile {
	out := make([]StepProfile, 0, len(p.steps))
	for _, s := range p.steps {
		out = append(out, *s)
	}
	return out
}

// Merge adds the steps of q.
func (p *Profile) Merge(q *Profile) {
	for _, s := range q.steps {
		p.Add(s.Kind, s.Name, s.Phase, s.FLOPs, s.Time)
		p.index[stepKey{s.Name, s.Phase}].Runs += s.Runs - 1
	}
}

// profiled runs the kernel of s and notes its time.
func (s *step[T]) profiled(run *Run[T]) {
	begun := time.Now()
	s.kernel()
	phase := PhaseForward
	switch {
	case s.again, s.phase == forward && run.Again:
		phase = PhaseAgain
	case s.phase == backward:
		phase = PhaseBackward
	}
	flops := s.flops
	if flops != 0 && s.share != nil {
		flops = int64(float64(flops) * s.share())
	}
	run.Profile.Add(s.kind, s.name, phase, flops, time.Since(begun))
}
