package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mailferry/internal/account"
)

// Wave is a named list of users, in the order in which they go.
type Wave struct {
	Name  string
	Users []string
	From  string // file of names, one a line, instead of Users

	file  string // where it stands
	place string // FILE:LINE
	has   map[string]bool
}

// Names returns the names of the wave's users, in order, and those that are
// in it more than once.
func (w Wave) Names() ([]string, []account.Repeat, error) {
	if w.From == "" {
		return account.ReadNames(strings.NewReader(strings.Join(w.Users, "\n")), w.place)
	}
	f, err := os.Open(w.From)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return account.ReadNames(f, w.From)
}

// Wave finds a wave.
func (c *Config) Wave(name string) (Wave, error) {
	if w, ok := c.Waves[name]; ok {
		return w, nil
	}
	if len(c.Waves) == 0 {
		return Wave{}, fmt.Errorf("no wave %q: there are none in conf.d", name)
	}
	names := slices.Sorted(maps.Keys(c.Waves))
	return Wave{}, fmt.Errorf("no wave %q; the nearest is %q", name, nearest(name, names))
}

// readWaves adds the waves of all files *.toml of a directory, if it is there.
func (c *Config) readWaves(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var problems []error
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".toml") && name[0] != '.' {
			problems = append(problems, c.readWaveFile(filepath.Join(dir, name)))
		}
	}
	return errors.Join(problems...)
}

func (c *Config) readWaveFile(path string) error {
	d, err := parseFile(path)
	if err != nil {
		return err
	}
	waves := map[string]*Wave{}
	for _, f := range d.fields {
		d.problem(f, c.addToWave(d, f, waves))
	}
	for _, name := range slices.Sorted(maps.Keys(waves)) {
		if err := waves[name].check(); err != nil {
			d.problems = append(d.problems, err)
		}
		c.Waves[name] = *waves[name]
	}
	return errors.Join(d.problems...)
}

// addToWave takes in one field of a wave.
func (c *Config) addToWave(d *document, f field, waves map[string]*Wave) error {
	empty := len(f.key) == 2 && isEmptyTable(f.value)
	if f.key[0] != "wave" || len(f.key) != 3 && !empty {
		return fmt.Errorf("unknown key %q: conf.d holds waves only, [wave.NAME] with users or from", strings.Join(f.key, "."))
	}
	name := f.key[1]
	if err := account.CheckName(name); err != nil {
		return fmt.Errorf("a wave's name is like a user's: %w", err)
	}
	if other, ok := c.Waves[name]; ok {
		return fmt.Errorf("wave %q stands in %s as well", name, other.place)
	}
	if waves[name] == nil {
		waves[name] = &Wave{Name: name, file: d.path, place: d.at(f), has: map[string]bool{}}
	}
	if empty {
		return nil
	}
	if err := waves[name].set(f.key[2], f.value); err != nil {
		return fmt.Errorf("wave %q: %w", name, err)
	}
	return nil
}

func (w *Wave) set(key string, value any) error {
	w.has[key] = true
	switch key {
	case "users":
		return w.setUsers(value)
	case "from":
		return w.setFrom(value)
	}
	return fmt.Errorf("unknown key %q; the nearest is %q", key, nearest(key, []string{"users", "from"}))
}

func (w *Wave) setUsers(value any) (err error) {
	array, ok := value.([]any)
	if !ok {
		return fmt.Errorf("users: a list is expected here, not %s", kindOf(value))
	}
	if w.Users, err = texts(array); err != nil {
		return fmt.Errorf("users: %w", err)
	}
	for _, name := range w.Users {
		if err := account.CheckName(name); err != nil {
			return fmt.Errorf("users: %w", err)
		}
	}
	return nil
}

func (w *Wave) setFrom(value any) error {
	path, ok := value.(string)
	if !ok {
		return fmt.Errorf("from: a path is expected here, not %s", kindOf(value))
	}
	w.From = path
	if err := checkPath(path); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	return nil
}

// check tells whether a wave has its users from exactly one place.
func (w *Wave) check() error {
	switch {
	case w.has["users"] && w.has["from"]:
		return fmt.Errorf("%s: wave %q has both users and from", w.place, w.Name)
	case !w.has["users"] && !w.has["from"]:
		return fmt.Errorf("%s: wave %q has neither users nor from", w.place, w.Name)
	}
	return nil
}
