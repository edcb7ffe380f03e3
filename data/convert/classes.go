package convert

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"diptych/data/arrowset"
)

// The file of class systems is a JSON object: "templates" holds the prompts of all systems, or an object with those of each;
// every other member is a class system, an array of {"id", "text"}. The system "concept" lies in the column group, every
// other in the attribute of its name.

func classColumn(system string) string {
	if system == "concept" {
		return arrowset.ColGroup
	}
	return system
}

// ReadClasses reads a file of class systems, as Export writes it. Errors name it and wrap ErrInput, or are the file system's.
func ReadClasses(name string) ([]arrowset.ClassSystem, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("convert: classes: %w", err)
	}
	systems, err := parseClasses(text)
	if err != nil {
		return nil, fmt.Errorf("convert: %s: %w", name, err)
	}
	return systems, nil
}

// parseClasses reads it; the systems keep the file's order.
func parseClasses(text []byte) ([]arrowset.ClassSystem, error) {
	if err := checkJSON(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	members, err := fields(text, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	var all []string
	each := map[string][]string{}
	var systems []arrowset.ClassSystem
	for _, f := range members {
		if f.name == "templates" {
			if json.Unmarshal(f.value, &all) != nil && json.Unmarshal(f.value, &each) != nil {
				return nil, fmt.Errorf("%w: templates must be a list of texts, or an object with such a list for each class system", ErrInput)
			}
			continue
		}
		s := arrowset.ClassSystem{Name: f.name, Column: classColumn(f.name)}
		if err := json.Unmarshal(f.value, &s.Classes); err != nil {
			return nil, fmt.Errorf("%w: class system %q: %w", ErrInput, f.name, err)
		}
		systems = append(systems, s)
	}
	for i := range systems {
		s := &systems[i]
		if s.Templates = all; len(each) > 0 {
			s.Templates = each[s.Name]
		}
		if len(s.Templates) == 0 {
			return nil, fmt.Errorf("%w: class system %q has no templates", ErrInput, s.Name)
		}
	}
	return systems, nil
}

// formatClasses is the reverse of parseClasses.
func formatClasses(systems []arrowset.ClassSystem) ([]byte, error) {
	same := true
	each := map[string][]string{}
	for _, s := range systems {
		if s.Column != classColumn(s.Name) {
			return nil, fmt.Errorf("class system %q lies in column %q; a file of class systems can only mean %q", s.Name, s.Column, classColumn(s.Name))
		}
		same = same && slices.Equal(s.Templates, systems[0].Templates)
		each[s.Name] = s.Templates
	}
	var templates any = each
	if same {
		templates = systems[0].Templates
	}
	out := []byte("{\n\"templates\": ")
	part, err := json.Marshal(templates)
	if err != nil {
		return nil, err
	}
	out = append(out, part...)
	for _, s := range systems {
		name, err := json.Marshal(s.Name)
		if err != nil {
			return nil, err
		}
		out = append(append(out, ",\n"...), name...)
		for i, c := range s.Classes {
			part, err := json.Marshal(c)
			if err != nil {
				return nil, err
			}
			out = append(out, map[bool]string{true: ": [\n ", false: ",\n "}[i == 0]...)
			out = append(out, part...)
		}
		if len(s.Classes) == 0 {
			out = append(out, ": ["...)
		}
		out = append(out, ']')
	}
	return append(out, "\n}\n"...), nil
}
