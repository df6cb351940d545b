package main

import (
	"fmt"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// faults are the sentences for all that breaks the rules, in order.
func (g *graph) faults(fset *token.FileSet, r rules) []string {
	s := &search{graph: g, fset: fset, rules: r, from: map[*node]*node{}, used: map[exception]bool{}}
	entries := g.entries(r.entry)
	for _, name := range slices.Sorted(maps.Keys(g.nodes)) {
		n := g.nodes[name]
		if pkg, _ := split(n.name); slices.Contains(r.inside, pkg) {
			s.reach(n, nil)
		}
		for _, w := range n.works {
			if arg, ok := entries[w.entry]; ok && arg == w.arg {
				s.begin(n, w)
			}
		}
	}
	for len(s.queue) > 0 {
		n := s.queue[0]
		s.queue = s.queue[1:]
		s.visit(n)
	}
	for _, e := range r.exceptions {
		if !s.used[e] {
			s.found = append(s.found, fmt.Sprintf("the exception for %s in %s is needed no more", e.what, e.in))
		}
	}
	slices.Sort(s.found)
	return slices.Compact(s.found)
}

// entries are the functions of which an argument runs as the user: AsUser, and
// what passes a parameter of its own on.
func (g *graph) entries(first string) map[string]int {
	entries := map[string]int{first: 1}
	for before := 0; before < len(entries); {
		before = len(entries)
		for _, n := range g.nodes {
			for _, w := range n.works {
				if arg, ok := entries[w.entry]; !ok || arg != w.arg {
					continue
				}
				if w.param >= 0 {
					entries[n.name] = w.param
				} else if w.body != nil && len(w.body.params) > 0 {
					entries[n.name] = w.body.params[0]
				}
			}
		}
	}
	return entries
}

// search goes through all that work refers to.
type search struct {
	graph *graph
	fset  *token.FileSet
	rules rules
	from  map[*node]*node // how each node was reached
	queue []*node
	used  map[exception]bool
	found []string
}

func (s *search) reach(n, from *node) {
	if _, seen := s.from[n]; !seen {
		s.from[n] = from
		s.queue = append(s.queue, n)
	}
}

// begin takes up a work.
func (s *search) begin(n *node, w work) {
	switch {
	case w.body != nil:
		s.reach(w.body, nil)
	case s.graph.nodes[w.name] != nil:
		s.reach(s.graph.nodes[w.name], nil)
	case w.param < 0:
		s.found = append(s.found, fmt.Sprintf("%s: what %s runs as the user can't be told: pass a function or a literal", s.place(w.pos), n.name))
	}
}

func (s *search) visit(n *node) {
	for _, ref := range n.refs {
		if why := s.why(ref.name); why != "" {
			s.object(n, ref, why)
			continue
		}
		if next := s.graph.nodes[ref.name]; next != nil {
			s.reach(next, n)
		}
		if key, ok := strings.CutPrefix(ref.name, interfaceMark); ok {
			for _, method := range s.graph.methods[key] {
				s.reach(s.graph.nodes[method], n)
			}
		}
	}
}

func (s *search) why(name string) string {
	if name == s.rules.entry {
		return "work inside of work"
	}
	return forbidden(name)
}

func (s *search) object(n *node, r ref, why string) {
	for _, e := range s.rules.exceptions {
		if e.in == n.name && e.what == r.name {
			s.used[e] = true
			return
		}
	}
	var chain []string
	for at := n; at != nil; at = s.from[at] {
		chain = append(chain, at.name)
	}
	s.found = append(s.found, fmt.Sprintf("%s: %s: %s; in %s", s.place(r.pos), r.name, why, strings.Join(chain, ", from ")))
}

func (s *search) place(pos token.Pos) string {
	p := s.fset.Position(pos)
	return fmt.Sprintf("%s:%d", filepath.Base(filepath.Dir(p.Filename))+"/"+filepath.Base(p.Filename), p.Line)
}
