package config

import (
	"fmt"
	"slices"
	"strings"
)

// Key is a key of the configuration.
type Key struct {
	Name    string // in the file; those of a table with its name and a dot
	Type    Type
	Default string // as text, see Type
	Help    string // what it does, one sentence

	set func(*Config, string) error
}

// Type says what a key's value is, in the file and as text.
type Type string

// The types. As text, the items of a list are separated by commas.
const (
	Text     Type = "string"
	Template Type = "template" // string: a path with {user}, {home}, {uid}
	Path     Type = "path"     // string: an absolute path
	List     Type = "list"     // array of strings
	Integer  Type = "integer"
	Boolean  Type = "boolean"
	Duration Type = "duration" // string, as 90s, 5m or 1h30m
	Bytes    Type = "size"     // integer, or string as 512K, 100M, 10G, 2T: powers of 1024
	Hours    Type = "window"   // string, as 01:00-05:30
)

// article is the type's word in a sentence.
func (t Type) article() string {
	if t == Integer {
		return "an integer"
	}
	return "a " + string(t)
}

// Keys lists all keys, in the order in which people read about them.
func Keys() []Key { return keys }

// KeyByName finds a key.
func KeyByName(name string) (Key, bool) {
	for _, k := range keys {
		if k.Name == name {
			return k, true
		}
	}
	return Key{}, false
}

// isTable reports whether keys stand in a table of that name.
func isTable(name string) bool {
	return slices.ContainsFunc(keys, func(k Key) bool { return strings.HasPrefix(k.Name, name+".") })
}

// Flag is the name of the key's flag, without dashes.
func (k Key) Flag() string { return strings.ReplaceAll(k.Name, ".", "-") }

// Env is the name of the key's environment variable.
func (k Key) Env() string { return EnvName(k.Flag()) }

// EnvName is the environment variable of a flag: of --hold-limit it is
// MAILFERRY_HOLD_LIMIT.
func EnvName(flag string) string {
	return "MAILFERRY_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// unknownKey names the known key that was most likely meant.
func unknownKey(name string) error {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.Name
	}
	return fmt.Errorf("unknown key %q; the nearest is %q", name, nearest(name, names))
}

// nearest finds the word with the fewest letters to put in, take out or
// replace.
func nearest(word string, words []string) (best string) {
	word = word[:min(len(word), 100)]
	least := -1
	for _, w := range words {
		if d := distance(word, w); least < 0 || d < least {
			best, least = w, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
