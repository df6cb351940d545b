package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows how far a run is: a bar on a terminal, elsewhere a plain line
// a minute and on SIGUSR1. The bar writes control characters, which belong
// into no log.
type progress struct {
	w     io.Writer
	verb  string
	bar   *progressbar.ProgressBar // nil unless w is a terminal
	start time.Time
	size  int64
	bytes atomic.Int64
	count atomic.Int64
	asked chan os.Signal
	done  chan struct{}
	ticks sync.WaitGroup // the display
}

// newProgress answers SIGUSR1 from now on, to the end of the process: nobody
// who asks how far it is shall kill it.
func newProgress(w io.Writer, verb string) *progress {
	p := &progress{w: w, verb: verb, start: time.Now(), asked: make(chan os.Signal, 1), done: make(chan struct{})}
	signal.Notify(p.asked, syscall.SIGUSR1)
	return p
}

// total begins the display.
func (p *progress) total(bytes int64) {
	p.size = bytes
	if f, ok := p.w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions64(bytes, progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(p.verb),
			progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	p.ticks.Go(p.tick)
}

// add counts a message.
func (p *progress) add(bytes int64) {
	p.bytes.Add(bytes)
	p.count.Add(1)
}

// tick shows the state until the run is over. The counters are read here, not
// drawn at each message: drawing costs more than converting one.
func (p *progress) tick() {
	interval := time.Minute
	if p.bar != nil {
		interval = 200 * time.Millisecond
		p.draw()
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-p.asked:
			p.line()
		case <-ticker.C:
			if p.bar != nil {
				p.draw()
			} else {
				p.line()
			}
		}
	}
}

func (p *progress) draw() {
	p.bar.Describe(fmt.Sprintf("%s: %d messages", p.verb, p.count.Load()))
	p.bar.Set64(p.bytes.Load())
	p.bar.RenderBlank() // Set64 draws only what has changed
}

func (p *progress) line() {
	bytes := p.bytes.Load()
	fmt.Fprintf(p.w, "%s: %d messages, %s of %s, %.0f MB/s\n", p.verb, p.count.Load(), size(bytes), size(p.size),
		float64(bytes)/1e6/time.Since(p.start).Seconds())
}

// finish ends the display and clears the bar.
func (p *progress) finish() {
	close(p.done)
	p.ticks.Wait() // or the bar is drawn once more
	if p.bar != nil {
		p.bar.Clear()
	}
}
