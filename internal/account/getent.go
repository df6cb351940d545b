package account

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// batch is how many names getent is asked for at a time: 500 names of 255
// bytes fit into a command line on every Linux (ARG_MAX, execve(2)).
const batch = 500

// notFound is getent's exit code when a key was not found; the others were
// printed (getent(1)).
const notFound = 2

// getent runs getent, whose lines must all be complete, and tells whether
// every key was found. "--" keeps a name from being an option.
func getent(ctx context.Context, database string, keys ...string) (lines []string, all bool, err error) {
	args := append([]string{database, "--"}, keys...)
	if len(keys) == 0 {
		args = args[:1]
	}
	cmd := exec.CommandContext(ctx, "getent", args...)
	cmd.WaitDelay = time.Second // for what getent has started and left behind
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	all = true
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == notFound && len(keys) > 0 {
		all, err = false, nil
	}
	switch {
	case ctx.Err() != nil:
		return nil, false, ctx.Err()
	case err != nil:
		return nil, false, fmt.Errorf("getent %s: %w: %.200q", database, err, strings.TrimSpace(stderr.String()))
	case len(out) > 0 && out[len(out)-1] != '\n':
		return nil, false, fmt.Errorf("getent %s: the last line has no end", database)
	}
	return slices.Collect(splitLines(string(out))), all, nil
}

func splitLines(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
			if !yield(strings.TrimSuffix(line, "\n")) {
				return
			}
		}
	}
}

// getentPasswd lists all users. A host has at least root: an empty list is
// a failure that getent did not see.
func getentPasswd(ctx context.Context) ([]User, error) {
	lines, _, err := getent(ctx, "passwd")
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 {
		return nil, errors.New("getent passwd: no users at all")
	}
	return parsePasswd(lines)
}

// getentNames looks users up by name. A name of digits is a uid to getent, so
// that only users who have the name that was asked for count.
func getentNames(ctx context.Context, names []string) ([]User, error) {
	var found []User
	for some := range slices.Chunk(names, batch) {
		lines, all, err := getent(ctx, "passwd", some...)
		if err != nil {
			return nil, err
		}
		if all && len(lines) != len(some) {
			return nil, fmt.Errorf("getent passwd: %d lines for %d names, and said to be all", len(lines), len(some))
		}
		list, err := parsePasswd(lines)
		if err != nil {
			return nil, err
		}
		for _, u := range list {
			if slices.Contains(some, u.Name) {
				found = append(found, u)
			}
		}
	}
	return found, nil
}

// parsePasswd reads lines of passwd(5).
func parsePasswd(lines []string) ([]User, error) {
	list := make([]User, len(lines))
	for i, line := range lines {
		part := strings.Split(line, ":")
		if len(part) != 7 {
			return nil, fmt.Errorf("getent passwd: line %d: %.200q has %d fields, not 7", i+1, line, len(part))
		}
		var err error
		if list[i], err = entry(part[0], part[2], part[3], part[5]); err != nil {
			return nil, fmt.Errorf("getent passwd: line %d: %w", i+1, err)
		}
	}
	return list, nil
}

// getentGroups finds the groups that users are in besides their own.
func getentGroups(ctx context.Context, names []string) (map[string][]int, error) {
	groups := make(map[string][]int, len(names))
	for some := range slices.Chunk(names, batch) {
		lines, _, err := getent(ctx, "initgroups", some...)
		if err != nil {
			return nil, err
		}
		if len(lines) != len(some) {
			return nil, fmt.Errorf("getent initgroups: %d lines for %d names", len(lines), len(some))
		}
		for i, line := range lines {
			if groups[some[i]], err = parseGroups(line, some[i]); err != nil {
				return nil, fmt.Errorf("getent initgroups: %w", err)
			}
		}
	}
	return groups, nil
}

// parseGroups reads a line "name gid gid ...".
func parseGroups(line, name string) ([]int, error) {
	part := strings.Fields(line)
	if len(part) == 0 || part[0] != name {
		return nil, fmt.Errorf("%.300q is no line of user %q", line, name)
	}
	var groups []int
	for _, text := range part[1:] {
		gid, err := parseID("gid", text)
		if err != nil {
			return nil, fmt.Errorf("user %q: %w", name, err)
		}
		groups = append(groups, gid)
	}
	return groups, nil
}
