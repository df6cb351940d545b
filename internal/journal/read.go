package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"mailferry/internal/safefs"
)

// Runs returns the names of all runs, oldest first. There are none before the
// first; a state directory that is missing is an error.
func Runs(state string) ([]string, error) {
	top, err := openState(state)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	runs, err := openSub(top, runsName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer runs.Close()
	return listRuns(runs)
}

// ReadSummary reads the summary of a run; fs.ErrNotExist when it is at work or
// was killed.
func ReadSummary(state, run string) (*Summary, error) {
	dir, err := openPath(state, runsName, run)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	data, err := readFile(dir, summaryName)
	if err != nil {
		return nil, err
	}
	var s Summary
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, &fs.PathError{Op: "read", Path: filepath.Join(dir.Path(), summaryName), Err: err}
	}
	return &s, nil
}

// Damaged is a line of a journal that can't be read.
type Damaged struct {
	Run  string
	Line int // from 1
	Err  error
}

func (e *Damaged) Error() string {
	return fmt.Sprintf("journal of run %s, line %d: %v", e.Run, e.Line, e.Err)
}

func (e *Damaged) Unwrap() error { return e.Err }

// Events calls yield with each event of a run, in order, and ends with the
// error that yield returns, if any. A last line without its end is one that
// was being written, and is none. Any other line that can't be read is a
// *Damaged, of which there may be several, joined; those after it are read.
func Events(state, run string, yield func(Event) error) error {
	var bad damages
	err := eachLine(state, run, func(n int, line []byte, err error) error {
		if err == nil {
			var e Event
			if e, err = decode(line); err == nil {
				return yield(e)
			}
		}
		bad.add(run, n, err)
		return nil
	})
	return errors.Join(err, bad.err())
}

// damages gathers the first few damaged lines, and counts the others.
type damages struct {
	first []error
	more  int
}

func (d *damages) add(run string, line int, err error) {
	if len(d.first) == 10 {
		d.more++
		return
	}
	d.first = append(d.first, &Damaged{run, line, err})
}

func (d *damages) err() error {
	if d.more > 0 {
		return errors.Join(append(d.first, fmt.Errorf("and %d damaged lines more", d.more))...)
	}
	return errors.Join(d.first...)
}

// eachLine calls yield with each line of a run's journal, counted from 1,
// without its end, or with why it can't be one. A line is valid during the
// call.
func eachLine(state, run string, yield func(n int, line []byte, err error) error) error {
	dir, err := openPath(state, runsName, run)
	if err != nil {
		return err
	}
	defer dir.Close()
	return eachLineOf(dir, yield)
}

func eachLineOf(run *safefs.Dir, yield func(n int, line []byte, err error) error) error {
	f, err := run.OpenRegular(journalName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // killed before it was made
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return splitLines(bufio.NewReaderSize(f, 256<<10), yield)
}

var errLong = fmt.Errorf("longer than %d MiB", maxLine>>20)

func splitLines(in *bufio.Reader, yield func(n int, line []byte, err error) error) error {
	for n := 1; ; n++ {
		line, err := nextLine(in)
		if err == io.EOF {
			return nil
		}
		if err != nil && err != errLong {
			return err
		}
		if err := yield(n, line, err); err != nil {
			return err
		}
	}
}

// nextLine reads a line, io.EOF if there is no whole one.
func nextLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		line = bytes.Clone(line)
	}
	long := false
	for err == bufio.ErrBufferFull {
		var more []byte
		more, err = in.ReadSlice('\n')
		if long = long || len(line)+len(more) > maxLine; !long {
			line = append(line, more...)
		}
	}
	if err != nil {
		return nil, err
	}
	if long {
		return nil, errLong
	}
	return line[:len(line)-1], nil
}
