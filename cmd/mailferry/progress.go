package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows how far a verb is: a bar on a terminal, elsewhere a plain line
// a minute and on SIGUSR1. The bar writes control characters, which belong
// into no log.
//
// A conversion is measured by its bytes; a run over many users by theirs, or
// by users where nobody knows the bytes. All methods but finish may be called
// by several goroutines.
type progress struct {
	w     io.Writer
	verb  string
	start time.Time
	size  int64 // bytes to do, 0 if unknown
	users int64 // to do, 0 for a conversion
	bytes atomic.Int64
	count atomic.Int64
	over  atomic.Int64 // users done
	asked chan os.Signal
	done  chan struct{}
	ticks sync.WaitGroup // the display

	mu     sync.Mutex               // guards the fields below, and what is written to w
	bar    *progressbar.ProgressBar // nil unless w is a terminal
	cols   int                      // width of the terminal
	reason string                   // why it waits; "" when it works
	since  time.Time                // when it began to
	waited time.Duration            // before that
}

// newProgress answers SIGUSR1 from now on, to the end of the process: nobody
// who asks how far it is shall kill it.
func newProgress(w io.Writer, verb string) *progress {
	p := &progress{w: w, verb: verb, start: time.Now(), asked: make(chan os.Signal, 1), done: make(chan struct{})}
	signal.Notify(p.asked, syscall.SIGUSR1)
	return p
}

// total begins the display of a conversion.
func (p *progress) total(bytes int64) { p.begin(0, bytes) }

// run begins the display of a run over users, who have so many bytes together;
// 0 if that is not known.
func (p *progress) run(users int, bytes int64) { p.begin(int64(users), bytes) }

func (p *progress) begin(users, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users, p.size = users, bytes
	if f, ok := p.w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		cols, _, err := term.GetSize(int(f.Fd()))
		if err != nil || cols == 0 {
			cols = 80
		}
		p.bar, p.cols = newBar(p.w, users, bytes, cols), cols
	}
	p.ticks.Go(p.tick)
}

// newBar leaves to the bar what it does well: for a run it would show bytes
// where there are users, and a time that waiting has spoiled.
func newBar(w io.Writer, users, bytes int64, cols int) *progressbar.ProgressBar {
	options := []progressbar.Option{progressbar.OptionSetWriter(w), progressbar.OptionClearOnFinish(),
		progressbar.OptionShowBytes(users == 0), progressbar.OptionSetPredictTime(users == 0)}
	if users > 0 {
		options = append(options, progressbar.OptionSetWidth(runBar(cols)))
	}
	if bytes == 0 {
		bytes = users
	}
	return progressbar.NewOptions64(max(bytes, 1), options...)
}

// runBar is the width of the bar of a run, which leaves room for the text.
func runBar(cols int) int { return min(max(cols-72, 5), 40) }

// add counts a message.
func (p *progress) add(bytes int64) {
	p.bytes.Add(bytes)
	p.count.Add(1)
}

// userDone counts a user with whom nothing is left to do in this run, whatever
// came of it.
func (p *progress) userDone() { p.over.Add(1) }

// waiting says why nothing happens from now on, or with "" that it goes on.
func (p *progress) waiting(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reason == p.reason {
		return
	}
	now := time.Now()
	if p.reason != "" {
		p.waited += now.Sub(p.since)
	}
	if reason != "" {
		p.above(fmt.Sprintf("%s: waiting: %s", p.verb, reason))
	} else {
		p.above(fmt.Sprintf("%s: goes on after %s", p.verb, short(now.Sub(p.since))))
	}
	p.reason, p.since = reason, now
	p.draw()
}

// say prints a line, above the bar if there is one.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.above(fmt.Sprintf(format, args...))
	p.draw()
}

// above writes a line where the bar is, which draw puts below.
func (p *progress) above(line string) {
	if p.bar != nil {
		p.bar.Clear()
	}
	fmt.Fprintln(p.w, printable(line))
}

// tick shows the state until the run is over. The counters are read here, not
// drawn at each message: drawing costs more than converting one.
func (p *progress) tick() {
	interval := time.Minute
	if p.bar != nil {
		interval = 200 * time.Millisecond
		p.show(false)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-p.asked:
			p.show(true)
		case <-ticker.C:
			p.show(p.bar == nil)
		}
	}
}

// show draws the bar, or prints a line.
func (p *progress) show(line bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if line {
		p.above(p.line())
	}
	p.draw()
}

func (p *progress) draw() {
	if p.bar == nil {
		return
	}
	now := p.bytes.Load()
	if p.size == 0 {
		now = p.over.Load()
	}
	p.bar.Set64(min(now, p.bar.GetMax64()-1)) // a full bar is gone, though syncing and cutovers are still to come
	text := fmt.Sprintf("%s: %d messages", p.verb, p.count.Load())
	if p.users > 0 {
		text = cut(p.runLine(), p.cols-runBar(p.cols)-len(" 100% || ")-1)
	}
	p.bar.Describe(printable(text))
}

// cut shortens a text to a number of runes: a bar that is wrapped can't be
// cleared.
func cut(text string, width int) string {
	if r := []rune(text); len(r) > width {
		return string(r[:max(width-3, 0)]) + "..."
	}
	return text
}

func (p *progress) line() string {
	if p.users > 0 {
		return p.runLine()
	}
	bytes := p.bytes.Load()
	return fmt.Sprintf("%s: %d messages, %s of %s, %.0f MB/s", p.verb, p.count.Load(), size(bytes), size(p.size), p.perSecond())
}

// runLine is the state of a run over users.
func (p *progress) runLine() string {
	line := fmt.Sprintf("%s: %d/%d users", p.verb, p.over.Load(), p.users)
	if p.reason != "" {
		return fmt.Sprintf("%s, waiting since %s: %s", line, p.since.Format(time.TimeOnly), p.reason)
	}
	line += fmt.Sprintf(", %s, %.0f MB/s", plural(int(p.count.Load()), "message"), p.perSecond())
	if left, ok := p.left(); ok {
		line += ", ETA " + short(left)
	}
	return line
}

// short is a duration without what does not matter.
func short(d time.Duration) string {
	if d >= time.Hour {
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return d.Round(time.Second).String()
}

// worked is the time since the start without that spent waiting.
func (p *progress) worked() time.Duration {
	worked := time.Since(p.start) - p.waited
	if p.reason != "" {
		worked -= time.Since(p.since)
	}
	return worked
}

// perSecond is in MB/s.
func (p *progress) perSecond() float64 {
	return float64(p.bytes.Load()) / 1e6 / max(p.worked().Seconds(), 1e-3)
}

// left is the time that the rest takes at the rate so far, once there is one.
func (p *progress) left() (time.Duration, bool) {
	done, all := p.bytes.Load(), p.size
	if all == 0 {
		done, all = p.over.Load(), p.users
	}
	worked := p.worked()
	if done == 0 || worked < time.Second {
		return 0, false
	}
	return time.Duration(float64(worked) * float64(max(all-done, 0)) / float64(done)), true
}

// finish ends the display and clears the bar.
func (p *progress) finish() {
	close(p.done)
	p.ticks.Wait() // or the bar is drawn once more
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.Clear()
		p.bar = nil
	}
}
