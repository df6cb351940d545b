// Package routing has the recipes of this directory in it, so that what is
// printed is what is tested.
package routing

import (
	"embed"
	"fmt"
	"regexp"
	"strings"
)

//go:embed *.md
var docs embed.FS

// Snippet is a part of a recipe: what goes into a file.
type Snippet struct {
	Recipe string // document, such as "postfix.md"
	File   string // absolute path
	Text   string // lines
}

var block = regexp.MustCompile("(?m)`(/[^`]+)`:\n\n((?:(?:    .*)?\n)+)")

// Snippets returns what a recipe writes into files, in its order: its blocks
// whose introduction ends in a path and a colon.
func Snippets(recipe string) ([]Snippet, error) {
	text, err := docs.ReadFile(recipe)
	if err != nil {
		return nil, fmt.Errorf("no recipe %q", recipe)
	}
	return snippets(recipe, string(text)), nil
}

func snippets(recipe, text string) (list []Snippet) {
	for _, m := range block.FindAllStringSubmatch(text, -1) {
		lines := strings.Trim(strings.ReplaceAll("\n"+m[2], "\n    ", "\n"), "\n")
		list = append(list, Snippet{recipe, m[1], lines + "\n"})
	}
	return list
}
