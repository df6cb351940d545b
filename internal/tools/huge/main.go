// Command huge converts what does not fit into memory and reports the peak of
// the converter's: a mailbox of 10 GiB, a message of 4 GiB, a line of 1 GiB. As
// root it precopies a user who has the first for his INBOX as well.
// It needs room for two copies below TMPDIR.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"mailferry/internal/mailgen"
)

// limit is the promise of docs/results.md, in bytes.
const limit = 64 << 20

func main() {
	tool := flag.String("mailferry", "bin/mailferry", "the program to measure")
	path := flag.String("make", "", "only make the mailbox number ARGUMENT at this path")
	only := flag.String("only", "", "measure only this verb: convert (and verify) or precopy")
	flag.Parse()
	err := func() error {
		if *path != "" {
			return generate(*path, flag.Arg(0))
		}
		return run(*tool, *only)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "huge:", err)
		os.Exit(1)
	}
}

// generate makes a giant. It runs in a process of its own: a child's peak of
// memory, as the kernel counts it, begins with that of its parent.
func generate(path, number string) error {
	i, err := strconv.Atoi(number)
	if err != nil || i < 0 || i >= len(giants) {
		return fmt.Errorf("no mailbox number %q", number)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(giants[i].make(f), f.Close())
}

type giant struct {
	name string
	make func(*os.File) error
}

var giants = []giant{
	{"10 GiB, messages of 8 KiB", func(f *os.File) error {
		w := bufio.NewWriterSize(f, 1<<20)
		if _, err := mailgen.Fixed(w, 1, 10<<30/(8<<10), 8<<10); err != nil {
			return err
		}
		return w.Flush()
	}},
	{"one message of 4 GiB, NULs", func(f *os.File) error { return sparse(f, 4<<30) }},
	{"one line of 1 GiB", oneLine},
}

// sparse writes a message whose body is a hole.
func sparse(f *os.File, size int64) error {
	if _, err := io.WriteString(f, opening); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte("\n\n"), size)
	return err
}

func oneLine(f *os.File) error {
	w := bufio.NewWriterSize(f, 1<<20)
	w.WriteString(opening)
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = 'x'
	}
	for range 1 << 10 {
		w.Write(chunk)
	}
	w.WriteString("\n\n")
	return w.Flush()
}

const opening = "From alice@example.org Mon Jan  2 03:04:05 2023\nSubject: large\n\n"

func run(tool, only string) error {
	dir, err := os.MkdirTemp("", "mailferry-huge-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Println("| mailbox | verb | peak RSS, MiB | seconds |\n|---|---|---|---|")
	for i, g := range giants {
		if only == "precopy" && i != precopied {
			continue
		}
		if err := measure(tool, only, dir, i); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	return nil
}

func measure(tool, only, dir string, number int) error {
	src := filepath.Join(dir, "mbox")
	maker := exec.Command("/proc/self/exe", "-make", src, strconv.Itoa(number))
	maker.Stderr = os.Stderr
	if err := maker.Run(); err != nil {
		return err
	}
	if only != "precopy" {
		if err := convert(tool, src, filepath.Join(dir, "Maildir"), giants[number].name); err != nil {
			return err
		}
	}
	if only == "convert" || number != precopied {
		return nil
	}
	return precopy(tool, src, filepath.Join(dir, "site"), giants[number].name)
}

func convert(tool, src, dst, name string) error {
	for _, verb := range []string{"convert", "verify"} {
		peak, err := child(name, verb, tool, verb, src, dst)
		if err != nil {
			return err
		}
		if verb == "convert" && peak > limit {
			return fmt.Errorf("%s took %d bytes of memory, more than %d", verb, peak, limit)
		}
	}
	return os.RemoveAll(dst)
}

// child runs a command, prints a line of the table and returns the peak of the
// command's resident memory in bytes.
func child(name, what string, argv ...string) (int64, error) {
	start := time.Now()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	fmt.Printf("| %s | %s | %.1f | %.0f |\n", name, what, float64(peak)/(1<<20), time.Since(start).Seconds())
	return peak, nil
}
