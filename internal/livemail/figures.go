package livemail

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Figures counts what happened, by name.
type Figures struct {
	mu     sync.Mutex
	counts map[string]int
}

// Add counts.
func (f *Figures) Add(name string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil {
		f.counts = map[string]int{}
	}
	f.counts[name] += n
}

// Get is a count.
func (f *Figures) Get(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[name]
}

// String lists all counts by name.
func (f *Figures) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.counts)) {
		fmt.Fprintf(&b, "%-28s %d\n", name, f.counts[name])
	}
	return b.String()
}
