package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"diptych/data/arrowset"
)

// Groups that two splits share are a leak only where sharing is the exception: when they are at most this share of the groups
// of the split that has fewer. A test of known concepts shares all its groups, by design.
const leakShare = 0.1

// rank orders splits by what is lost when a picture is left out: what is measured on stays.
func rank(split string) int {
	s := strings.ToLower(split)
	switch {
	case strings.HasPrefix(s, "test"):
		return 0
	case strings.HasPrefix(s, "val"), strings.HasPrefix(s, "dev"):
		return 1
	case strings.HasPrefix(s, "train"):
		return 3
	}
	return 2
}

// bySplit orders splits: a picture of two stays in the one that comes first.
func bySplit(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b)) }

// samePictures finds pictures of equal pixels.
func (c *checker) samePictures() {
	first := map[sum]int{}
	same := map[int][]int{} // rows by the first that shows the picture, where there are more
	for i, s := range c.sums {
		if s == (sum{}) {
			continue
		}
		if f, ok := first[s]; ok {
			if same[f] == nil {
				same[f] = []int{f}
			}
			same[f] = append(same[f], i)
		} else {
			first[s] = i
		}
	}
	for _, rows := range same {
		c.otherSplits(rows)
		c.oneSplit(rows)
	}
}

// otherSplits finds those of rows, which show one picture, that are in the way of a row of another split. A picture in two groups
// is claimed to show two things: then what is measured, the pair, was not trained on, though the picture was.
func (c *checker) otherSplits(rows []int) {
	meta := c.set.Meta()
	type place struct{ split, group string }
	first, firstOf := map[place]int{}, map[string]int{}
	for _, i := range rows {
		m := &meta[i]
		if _, ok := first[place{m.Split, m.Group}]; !ok {
			first[place{m.Split, m.Group}] = i
		}
		if _, ok := firstOf[m.Split]; !ok {
			firstOf[m.Split] = i
		}
	}
	splits := slices.SortedFunc(maps.Keys(firstOf), bySplit)
	for _, i := range rows {
		m := &meta[i]
		kind, twin := ImageTwoNames, -1
		for _, s := range splits[:slices.Index(splits, m.Split)] {
			if twin < 0 {
				twin = firstOf[s]
			}
			for _, p := range []place{{s, m.Group}, {s, ""}} {
				if o, ok := first[p]; ok && kind == ImageTwoNames {
					kind, twin = ImageLeak, o
				}
			}
			if m.Group == "" && kind == ImageTwoNames {
				kind, twin = ImageLeak, firstOf[s]
			}
		}
		if twin >= 0 {
			group := ""
			if kind == ImageTwoNames {
				group = fmt.Sprintf(", group %s instead of %s,", meta[twin].Group, m.Group)
			}
			c.add(kind, i, -1, twin, "split %s; row %d (%s) of split %s%s has the same pixels", m.Split, twin, meta[twin].ImageID, meta[twin].Split, group)
		}
		if kind == ImageLeak {
			c.leaks[i] = true
		}
	}
}

// oneSplit finds those of rows, which show one picture, that are in the way of a row of their own split.
func (c *checker) oneSplit(rows []int) {
	meta := c.set.Meta()
	type key struct {
		split    string
		captions uint64
	}
	pair, one := map[key]int{}, map[string]int{} // the first row with these captions; the first row of the split
	for _, i := range rows {
		if c.leaks[i] { // it is to go anyway
			continue
		}
		m := &meta[i]
		k := key{m.Split, captionsKey(c.set.Captions(i))}
		twin, doubled := pair[k]
		before, repeated := one[m.Split]
		switch {
		case doubled:
			c.add(PairRepeated, i, -1, twin, "row %d (%s) has the same pixels and captions", twin, meta[twin].ImageID)
			continue
		case !repeated:
			one[m.Split] = i
		case m.Group == "" || meta[before].Group == "":
			c.add(ImageRepeated, i, -1, before, "row %d (%s) has the same pixels and other captions", before, meta[before].ImageID)
		case m.Group != meta[before].Group:
			c.add(ImageTwoGroups, i, -1, before, "group %s; row %d (%s) of group %s has the same pixels", m.Group, before, meta[before].ImageID, meta[before].Group)
		}
		pair[k] = i
	}
}

// names checks image ids, splits, groups, labels and classes, and counts them.
func (c *checker) names(r *Report) {
	meta := c.set.Meta()
	ids := make(map[string]int, len(meta))
	for i := range meta {
		if first, ok := ids[meta[i].ImageID]; ok {
			c.add(ImageIDRepeated, i, -1, first, "row %d has the same image_id", first)
		} else {
			ids[meta[i].ImageID] = i
		}
	}
	c.splits(r)
	c.groups(r)
	r.Groups.Labels = c.variants(LabelVariant, "label", func(m *arrowset.RowMeta) string { return m.Label })
	c.variants(GroupVariant, "group", func(m *arrowset.RowMeta) string { return m.Group })
	c.variants(SplitVariant, "split", func(m *arrowset.RowMeta) string { return m.Split })
	for _, s := range c.set.Manifest().Classes {
		c.classes(&s)
	}
}

// variants finds the rows whose value is spelled otherwise than in most rows, and returns the number of values.
func (c *checker) variants(k Kind, column string, value func(*arrowset.RowMeta) string) int {
	meta := c.set.Meta()
	count := map[string]int{}
	for i := range meta {
		if v := value(&meta[i]); v != "" {
			count[v]++
		}
	}
	usual := map[string]string{} // by the folded value
	folded := map[string]string{}
	for _, v := range slices.Sorted(maps.Keys(count)) {
		f := fold(v)
		folded[v] = f
		if u, ok := usual[f]; !ok || count[v] > count[u] {
			usual[f] = v
		}
	}
	for i := range meta {
		v := value(&meta[i])
		if u := usual[folded[v]]; v != "" && u != v {
			c.add(k, i, -1, -1, "%s %q, spelled %q in %d rows", column, v, u, count[u])
		}
	}
	return len(count)
}

// splits counts, and finds those that are empty.
func (c *checker) splits(r *Report) {
	meta := c.set.Meta()
	stats := map[string]*SplitStats{}
	groups, labels := map[[2]string]bool{}, map[[2]string]bool{}
	for name := range c.set.Manifest().Splits {
		stats[name] = &SplitStats{Name: name}
	}
	for i := range meta {
		m := &meta[i]
		s := stats[m.Split]
		s.Pictures++
		s.Captions += len(c.set.Captions(i))
		if key := [2]string{m.Split, m.Group}; m.Group == "" || !groups[key] {
			groups[key] = true
			s.Groups++
		}
		if key := [2]string{m.Split, m.Label}; m.Label != "" && !labels[key] {
			labels[key] = true
			s.Labels++
		}
	}
	if c.Split != "" && stats[c.Split] == nil {
		c.add(SplitEmpty, -1, -1, -1, "the recipe trains on split %s, which the set does not have", c.Split)
	}
	r.Splits = []SplitStats{}
	for _, name := range slices.SortedFunc(maps.Keys(stats), func(a, b string) int {
		return cmp.Or(cmp.Compare(stats[b].Pictures, stats[a].Pictures), strings.Compare(a, b))
	}) {
		if stats[name].Pictures == 0 {
			c.add(SplitEmpty, -1, -1, -1, "split %s has no rows", name)
		}
		r.Splits = append(r.Splits, *stats[name])
	}
}

// groups counts, and finds those that lie in two splits where that is the exception.
func (c *checker) groups(r *Report) {
	meta := c.set.Meta()
	rows := map[string]int{}
	first := map[string]map[string]int{} // split, group: its first row there
	for i := range meta {
		m := &meta[i]
		if m.Label == "" {
			r.Groups.NoLabel++
		}
		if m.Group == "" {
			r.Groups.Alone++
			continue
		}
		rows[m.Group]++
		if first[m.Split] == nil {
			first[m.Split] = map[string]int{}
		}
		if _, ok := first[m.Split][m.Group]; !ok {
			first[m.Split][m.Group] = i
		}
	}
	r.Groups.Groups = len(rows)
	for _, n := range rows {
		r.Groups.Largest = max(r.Groups.Largest, n)
		if n == 1 {
			r.Groups.Singles++
		}
	}
	r.Overlaps = []Overlap{}
	names := slices.SortedFunc(maps.Keys(first), bySplit)
	for x, kept := range names {
		for _, other := range names[x+1:] {
			var shared []string
			for g := range first[other] {
				if _, ok := first[kept][g]; ok {
					shared = append(shared, g)
				}
			}
			if len(shared) == 0 {
				continue
			}
			share := float64(len(shared)) / float64(min(len(first[kept]), len(first[other])))
			r.Overlaps = append(r.Overlaps, Overlap{kept, other, len(shared), share})
			if share > leakShare {
				continue
			}
			for _, g := range shared {
				c.add(GroupLeak, first[other][g], -1, first[kept][g], "group %s is in %s and %s, which share %.1f %% of their groups", g, other, kept, 100*share)
			}
		}
	}
}

// classes finds the rows whose value is no class of a system.
func (c *checker) classes(s *arrowset.ClassSystem) {
	value, ok := c.set.Column(s.Column)
	if !ok {
		return // Open refuses such a manifest
	}
	ids, folded := map[string]bool{}, map[string]string{}
	for _, class := range s.Classes {
		ids[class.ID] = true
		folded[fold(class.ID)] = class.ID
	}
	for i := range c.set.Len() {
		v := value(i)
		if v == "" || ids[v] {
			continue
		}
		meant := ""
		if near, ok := folded[fold(v)]; ok {
			meant = "; " + near + " is one"
		}
		c.add(ClassUnknown, i, -1, -1, "%s %q is no class of system %s%s", s.Column, v, s.Name, meant)
	}
}
