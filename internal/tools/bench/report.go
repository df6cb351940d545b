package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// writeHead says when and where the figures were taken.
func writeHead(w io.Writer, c config, scratch string) {
	fmt.Fprintf(w, "# Conversion and migration, measured\n\n")
	fmt.Fprintf(w, "- Date: %s\n", time.Now().UTC().Format("2006-01-02 15:04 MST"))
	fmt.Fprintf(w, "- Kernel: %s; %d cores; %s\n", kernel(), runtime.NumCPU(), runtime.Version())
	fmt.Fprintf(w, "- Target: a fresh ext4 on a loop device for every run (%s); its file lies on %s\n",
		strings.Join(mkfsOptions[2:], " "), filesystem(scratch))
	fmt.Fprintf(w, "- Peers: %s\n", strings.Join([]string{version("tar", "--version"), version("rsync", "--version"), version("dovecot", "--version"), version("procmail", "-v"), version("maildrop", "-v"), version("postconf", "-dh", "mail_version"), "mb2md as installed"}, "; "))
	fmt.Fprintf(w, "- %d rounds, contenders in turn (slow peers: %d), conversions as uid %d; sources in memory\n", c.rounds, c.peerRounds, c.uid)
	fmt.Fprint(w, "- CPU is user and system time of the contender's processes; the kernel's write-back threads are nobody's\n")
	fmt.Fprint(w, "- The bare loop is timed from its first create to the end of syncfs, in its own process, without the process's start\n")
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
}

func filesystem(path string) string {
	out, err := exec.Command("df", "--output=fstype", path).Output()
	if err != nil {
		return err.Error()
	}
	_, name, _ := strings.Cut(string(out), "\n") // below the heading
	return strings.TrimSpace(name)
}

func version(argv ...string) string {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput() // procmail's goes to stderr
	if err != nil {
		return argv[0] + ": " + err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	if !strings.HasPrefix(line, argv[0]) {
		line = argv[0] + " " + line
	}
	return line
}

// writeCase writes the table of one case.
func writeCase(w io.Writer, b *bench, results []result) {
	fmt.Fprintf(w, "\n## %s\n\n%d messages, %.1f MiB\n\n", b.title, b.messages, float64(b.bytes)/(1<<20))
	fmt.Fprintln(w, "| contender | runs | wall s: median (min-max) | CPU s: median (min-max) | CPU µs/message | peak RSS MiB | messages | wall: ours/this | CPU: ours/this |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	var base []usage
	for _, r := range results {
		if r.name == ours {
			base = r.runs
		}
	}
	for _, r := range results {
		if len(r.runs) == 0 {
			fmt.Fprintf(w, "| %s | 0 | - | - | - | - | - | - | - |\n", r.name)
			continue
		}
		cpu := column(r.runs, usage.cpuSeconds)
		fmt.Fprintf(w, "| %s | %d | %s | %s | %.1f | %.1f | %d | %s | %s |\n", r.name, len(r.runs),
			spread(column(r.runs, usage.wallSeconds)), spread(cpu), median(cpu)/float64(b.messages)*1e6,
			slices.Max(column(r.runs, usage.rssMiB)), r.runs[0].messages,
			ratio(base, r.runs, usage.wallSeconds), ratio(base, r.runs, usage.cpuSeconds))
	}
	writeNotes(w, b, results)
}

func writeNotes(w io.Writer, b *bench, results []result) {
	for _, r := range results {
		if r.note != "" {
			fmt.Fprintf(w, "\n%s left out after %d runs: %q\n", r.name, len(r.runs), r.note)
		}
		if len(r.phases) == 0 {
			continue
		}
		fmt.Fprintf(w, "\nCPU of the %s by call, µs/message (one run more, taking the times included):", r.name)
		names := slices.SortedFunc(maps.Keys(r.phases), func(a, b string) int { return cmp.Compare(r.phases[b], r.phases[a]) })
		for i, name := range names {
			sep := map[bool]string{true: "", false: ","}[i == 0]
			fmt.Fprintf(w, "%s %s %.1f", sep, name, float64(r.phases[name].Microseconds())/float64(b.messages))
		}
		fmt.Fprintln(w)
	}
}

func (u usage) wallSeconds() float64 { return u.wall.Seconds() }
func (u usage) cpuSeconds() float64  { return u.cpu.Seconds() }
func (u usage) rssMiB() float64      { return float64(u.rss) / (1 << 20) }
func (u usage) diskMiB() float64     { return float64(u.disk) / (1 << 20) }

func column(runs []usage, of func(usage) float64) []float64 {
	values := make([]float64, len(runs))
	for i, u := range runs {
		values[i] = of(u)
	}
	return values
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func spread(values []float64) string {
	return fmt.Sprintf("%.2f (%.2f-%.2f)", median(values), slices.Min(values), slices.Max(values))
}

// ratio is the median over the rounds in which both took part of ours/other,
// without those in which the other took nothing.
func ratio(base, other []usage, of func(usage) float64) string {
	var quotients []float64
	for _, o := range other {
		for _, b := range base {
			if b.round == o.round && of(o) > 0 {
				quotients = append(quotients, of(b)/of(o))
			}
		}
	}
	if len(quotients) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", median(quotients))
}
