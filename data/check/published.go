package check

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// PublishedSet is what a well-known set has.
type PublishedSet struct {
	Name   string           `json:"name"`
	Source string           `json:"source"`
	Splits []PublishedSplit `json:"splits"`
	match  *regexp.Regexp   // names of data sets that are taken for it
}

// PublishedSplit is one split of it.
type PublishedSplit struct {
	Name     string `json:"name"` // "" is the whole set
	Pictures int    `json:"pictures"`
	Captions int    `json:"captions"` // 0: not known
}

// Sources of the numbers below.
const (
	hodosh   = "Hodosh, Young, Hockenmaier 2013, §2; Flickr_8k.{train,dev,test}Images.txt and Flickr8k.token.txt"
	young    = "Young, Lai, Hodosh, Hockenmaier 2014, §2; results_20130124.token"
	karpathy = "Karpathy and Fei-Fei 2015, §4, and the split's file dataset_%s.json"
	coco     = "Lin et al. 2014 and Chen et al. 2015; annotations/captions_{train,val}%d.json"
)

// Published are the sets whose counts are known. Where one has several common splits, each has an entry: the one that fits best
// is taken.
var Published = []PublishedSet{
	{"flickr8k", hodosh, []PublishedSplit{{"train", 6000, 30000}, {"val", 1000, 5000}, {"test", 1000, 5000}}, regexp.MustCompile(`flickr_?-?8k`)},
	{"flickr30k", young, []PublishedSplit{{"", 31783, 158915}}, flickr30k},
	{"flickr30k-karpathy", fmt.Sprintf(karpathy, "flickr30k"), []PublishedSplit{{"train", 29000, 145000}, {"val", 1014, 5070}, {"test", 1000, 5000}}, flickr30k},
	{"coco2014", fmt.Sprintf(coco, 2014), []PublishedSplit{{"train", 82783, 414113}, {"val", 40504, 202654}}, coco2014},
	{"coco2014-karpathy", fmt.Sprintf(karpathy, "coco"), []PublishedSplit{{"train", 113287, 566747}, {"val", 5000, 25010}, {"test", 5000, 25010}}, coco2014},
	{"coco2017", fmt.Sprintf(coco, 2017), []PublishedSplit{{"train", 118287, 591753}, {"val", 5000, 25014}}, regexp.MustCompile(`coco.*2017`)},
}

var (
	flickr30k = regexp.MustCompile(`flickr_?-?30k`)
	coco2014  = regexp.MustCompile(`coco.*(2014|karpathy)`)
)

// findPublished chooses the set to compare with, nil if there is none.
func (c *checker) findPublished() (*PublishedSet, error) {
	name := strings.ToLower(c.set.Manifest().Name)
	var best *PublishedSet
	least := 0
	for i := range Published {
		p := &Published[i]
		if c.Published == p.Name {
			return p, nil
		}
		if c.Published != "" || !p.match.MatchString(name) {
			continue
		}
		if off := len(p.Splits) + p.off(c.set.Manifest().Splits); best == nil || off < least {
			best, least = p, off
		}
	}
	if c.Published != "" {
		names := make([]string, len(Published))
		for i := range Published {
			names[i] = Published[i].Name
		}
		return nil, fmt.Errorf("check: %w: no published set %q; known are %s", ErrOption, c.Published, strings.Join(names, ", "))
	}
	return best, nil
}

// off counts how many splits do not fit, and takes off those that do.
func (p *PublishedSet) off(splits map[string]int) (n int) {
	total := 0
	for _, rows := range splits {
		total += rows
	}
	for _, s := range p.Splits {
		rows, ok := splits[s.Name]
		if s.Name == "" {
			rows, ok = total, true
		}
		switch {
		case !ok:
		case rows == s.Pictures:
			n--
		default:
			n++
		}
	}
	return n
}

// comparePublished compares the splits that both sets have.
func (c *checker) comparePublished(p *PublishedSet, splits []SplitStats) {
	if p == nil {
		return
	}
	for _, want := range p.Splits {
		var got SplitStats
		what := "split " + want.Name
		if i := slices.IndexFunc(splits, func(s SplitStats) bool { return s.Name == want.Name }); i >= 0 {
			got = splits[i]
		} else if want.Name != "" {
			continue // part of a set may have been imported
		} else {
			what = "the set"
			for _, s := range splits {
				got.Pictures += s.Pictures
				got.Captions += s.Captions
			}
		}
		if got.Pictures != want.Pictures {
			c.add(PublishedCount, -1, -1, -1, "%s has %d pictures, %s has %d (%s)", what, got.Pictures, p.Name, want.Pictures, p.Source)
		}
		if want.Captions > 0 && got.Captions != want.Captions {
			c.add(PublishedCount, -1, -1, -1, "%s has %d captions, %s has %d (%s)", what, got.Captions, p.Name, want.Captions, p.Source)
		}
	}
}
