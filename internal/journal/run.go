package journal

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailferry/internal/safefs"
)

const (
	runsName    = "runs"
	journalName = "journal.jsonl"
	summaryName = "summary.json"
)

// Run is a run at work: it holds the lock of the state directory. Its methods
// may be called by several goroutines, and by work that is done as a user,
// except for Begin and Finish.
type Run struct {
	id, verb string
	began    time.Time
	dir      *safefs.Dir
	lock     *os.File
	lines    *appender
	summary  *os.File // with space, so that a full disk can't stop it
	hand     chan func()
	ended    chan struct{}
	closing  sync.Once
}

// Begin locks the state directory, made if need be, and begins a run. The
// error is a *Locked when another run is at work. Verb is letters and digits.
func Begin(state, verb string) (*Run, error) {
	if verb == "" || strings.Trim(verb, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return nil, fmt.Errorf("%q is no verb for the journal", verb)
	}
	dir, err := makeState(state)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	lock, err := takeLock(dir)
	if err != nil {
		return nil, err
	}
	r := &Run{verb: verb, began: time.Now().UTC(), lock: lock, hand: make(chan func()), ended: make(chan struct{})}
	if err := r.begin(dir); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// begin makes the run's folder.
func (r *Run) begin(state *safefs.Dir) error {
	runs, err := makeSub(state, runsName)
	if err != nil {
		return err
	}
	defer runs.Close()
	list, err := listRuns(runs)
	if err != nil {
		return err
	}
	r.id = nextID(list, r.verb, r.began)
	host, _ := os.Hostname() // told, not relied on
	if err := writeHolder(r.lock, Holder{os.Getpid(), host, r.id, r.verb, r.began.Truncate(time.Second)}); err != nil {
		return err
	}
	if r.dir, err = runs.Mkdir(r.id, dirMode); err != nil {
		return err
	}
	if err := r.create(); err != nil {
		return err
	}
	go r.serve()
	return errors.Join(r.dir.Sync(), runs.Sync())
}

// firstSpace is what a run can't begin without, in bytes of its journal.
const firstSpace = 64 << 10

// create makes the files of a run, with space.
func (r *Run) create() error {
	f, err := r.dir.Create(journalName, fileMode)
	if err != nil {
		return err
	}
	r.lines = newAppender(f)
	if err := r.lines.room(firstSpace); err != nil {
		return err
	}
	if r.summary, err = r.dir.Create(file{name: summaryName}.next(), fileMode); err != nil {
		return err
	}
	return newAppender(r.summary).allocate(summarySpace)
}

// nextID is above all that are there, even if the clock was set back.
func nextID(list []string, verb string, now time.Time) string {
	second, part := now.Unix(), int64(now.Nanosecond())*65536/1e9
	if len(list) > 0 {
		s, p, _, _ := parseID(list[len(list)-1]) // listed, so it is one
		if last := s*65536 + p; second*65536+part <= last {
			second, part = (last+1)/65536, (last+1)%65536
		}
	}
	return fmt.Sprintf("%s-%s-%04x", time.Unix(second, 0).UTC().Format(idTime), verb, part)
}

const idTime = "20060102T150405Z"

// parseID takes the name of a run apart: when it began, in seconds and 65536th
// parts of one, and its verb.
func parseID(id string) (second, part int64, verb string, ok bool) {
	words := strings.Split(id, "-")
	if len(words) != 3 {
		return 0, 0, "", false
	}
	t, err := time.Parse(idTime, words[0])
	n, perr := strconv.ParseUint(words[2], 16, 16)
	return t.Unix(), int64(n), words[1], err == nil && perr == nil && words[1] != "" && len(words[0]) == len(idTime) && len(words[2]) == 4
}

// listRuns returns the names of all runs, oldest first.
func listRuns(runs *safefs.Dir) ([]string, error) {
	var list []string
	err := runs.Names(func(name string) error {
		if _, _, _, ok := parseID(name); ok {
			list = append(list, name)
		}
		return nil
	})
	key := func(id string) string { return id[:len(idTime)] + id[len(id)-4:] }
	slices.SortFunc(list, func(a, b string) int { return strings.Compare(key(a), key(b)) })
	return list, err
}

// ID returns the run's name.
func (r *Run) ID() string { return r.id }

// Dir returns the path of the run's folder.
func (r *Run) Dir() string { return r.dir.Path() }

// Log appends an event and makes it durable.
func (r *Run) Log(e Event) error { return r.LogAll([]Event{e}) }

// LogAll appends events together and makes them durable.
func (r *Run) LogAll(events []Event) error {
	var lines []byte
	for _, e := range events {
		line, err := r.line(e)
		if err != nil {
			return err
		}
		lines = append(lines, line...)
	}
	return r.lines.append(lines, 0)
}

// line fills in what Log sets.
func (r *Run) line(e Event) ([]byte, error) {
	e.Run = r.id
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	return e.encode()
}

// do runs work in a goroutine that is not the caller's, so with the identity
// of the process, even when the caller works as a user.
func (r *Run) do(work func() error) error {
	done := make(chan error, 1)
	select {
	case r.hand <- func() { done <- work() }:
		return <-done
	case <-r.ended:
		return os.ErrClosed
	}
}

// serve does what do asks for.
func (r *Run) serve() {
	for {
		select {
		case work := <-r.hand:
			work()
		case <-r.ended:
			return
		}
	}
}

// Finish writes the summary, durable and at once, and ends the run. Run, Verb,
// Started and Ended are filled in, Check with what Summary.Check says, which is
// returned as well.
func (r *Run) Finish(s Summary) error {
	s.Run, s.Verb, s.Started, s.Ended = r.id, r.verb, r.began, time.Now().UTC()
	check := s.Check()
	if check != nil {
		s.Discrepancy = check.Error()
	}
	return errors.Join(check, r.writeSummary(s), r.Close())
}

func (r *Run) writeSummary(s Summary) error {
	line, err := encode(s)
	if err != nil {
		return err
	}
	if _, err := r.summary.WriteAt(line, 0); err != nil {
		return err
	}
	if err := r.summary.Sync(); err != nil {
		return err
	}
	if err := r.dir.Rename(file{name: summaryName}.next(), summaryName, true); err != nil {
		return err
	}
	return r.dir.Sync()
}

// Close ends the run without a summary, as after a failure, and releases the
// lock. After Finish it does nothing.
func (r *Run) Close() (err error) {
	r.closing.Do(func() { err = r.close() })
	return err
}

func (r *Run) close() (err error) {
	close(r.ended)
	if r.lines != nil {
		err = errors.Join(err, r.lines.close())
	}
	if r.summary != nil {
		err = errors.Join(err, r.summary.Close())
	}
	if r.dir != nil {
		err = errors.Join(err, r.dir.Close())
	}
	return errors.Join(err, r.lock.Close())
}
