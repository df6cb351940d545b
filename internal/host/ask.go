package host

import (
	"context"
	"fmt"
	"time"
)

// Limits of a question about a configuration.
const (
	tellLimit = 10 * time.Second
	maxTold   = 4 << 20 // bytes
)

// Ask runs a program that tells about a configuration, for at most 10 seconds,
// and returns the lines of its standard output. The error is a *Failed, or
// tells of more than 4 MiB.
func Ask(ctx context.Context, path string, args ...string) ([]string, error) {
	return ask(ctx, program{path: path, args: args})
}

// Banner is Ask of a program about itself: procmail -v, for one, answers on
// standard error.
func Banner(ctx context.Context, path string, args ...string) ([]string, error) {
	return ask(ctx, program{path: path, args: args, both: true})
}

func ask(ctx context.Context, p program) (told []string, err error) {
	size := 0
	p.limit = tellLimit
	p.each = func(line []byte) error {
		if size += len(line); size > maxTold {
			return fmt.Errorf("more than %d bytes", maxTold)
		}
		told = append(told, string(line))
		return nil
	}
	err = p.run(ctx)
	return told, err
}
