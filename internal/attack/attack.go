package attack

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
)

// Target is where a user rages, and how.
type Target struct {
	UID, GID int
	Groups   []int
	Roots    []string // directories: his home, the spool
	Bait     *Bait
	Plant    []string // names that the program under test is going to use
	Destroy  bool     // unlink, truncate and append as well
	Threads  int      // 2 if 0
	Seed     uint64
}

// Tally says how often each move succeeded.
type Tally map[string]int

// mark begins the names that the attacker needs for himself.
const mark = ".attack-"

// Attack is under way until Stop.
type Attack struct {
	target Target
	stop   chan struct{}
	done   sync.WaitGroup

	mu    sync.Mutex // of what follows
	tally Tally
	err   error
}

// Start begins the attack.
func Start(target Target) *Attack {
	if target.Threads == 0 {
		target.Threads = 2
	}
	a := &Attack{target: target, stop: make(chan struct{}), tally: Tally{}}
	id := safefs.Identity{UID: target.UID, GID: target.GID, Groups: target.Groups}
	for n := range target.Threads {
		r := &raid{target: target, number: n, tally: Tally{}, rand: rand.New(rand.NewPCG(target.Seed, uint64(n)))}
		r.plants = slices.DeleteFunc(slices.Clone(target.Plant), func(name string) bool { return !r.owns(name) })
		a.done.Go(func() { a.end(r, safefs.AsUser(id, func() error { return r.run(a.stop) })) })
	}
	return a
}

// Stop ends the attack. What was swapped is back in its place by then, unless
// the program under test moved it.
func (a *Attack) Stop() (Tally, error) {
	close(a.stop)
	a.done.Wait()
	return a.tally, a.err
}

func (a *Attack) end(r *raid, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = errors.Join(a.err, err)
	for move, n := range r.tally {
		a.tally[move] += n
	}
}

// raid is one thread of the attack. It goes about by safefs, so that it does
// not fall for the symlinks of the others.
type raid struct {
	target Target
	number int
	plants []string
	moves  int
	tally  Tally
	rand   *rand.Rand
}

func (r *raid) run(stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		root := r.target.Roots[r.rand.IntN(len(r.target.Roots))]
		d, err := safefs.OpenFor(root, r.target.UID)
		if err != nil {
			continue // another thread of ours is at it
		}
		r.wander(d)
	}
}

// wander goes down at random and makes some moves on each directory.
func (r *raid) wander(d *safefs.Dir) {
	for {
		names := r.names(d)
		for range movesPerDir {
			r.move(d, names)
		}
		sub, err := r.down(d)
		d.Close()
		if err != nil {
			return
		}
		d = sub
	}
}

// movesPerDir is how many moves go by between two looks at what there is.
const movesPerDir = 32

// names lists some entries. Each thread keeps to its share of all names: two
// that swap the same one would never get it back into its place.
func (r *raid) names(d *safefs.Dir) (names []string) {
	enough := errors.New("enough")
	d.Names(func(name string) error {
		if r.owns(name) && !strings.HasPrefix(name, mark) {
			names = append(names, name)
		}
		if len(names) == 100 {
			return enough
		}
		return nil
	})
	r.rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names
}

func (r *raid) owns(name string) bool {
	h := fnv.New32a()
	h.Write([]byte(name))
	return int(h.Sum32()%uint32(r.target.Threads)) == r.number
}

// down opens one of the directories, whichever thread's it is.
func (r *raid) down(d *safefs.Dir) (sub *safefs.Dir, err error) {
	err = errors.New("no directories")
	seen := 0
	d.Names(func(name string) error {
		if next, nerr := d.Sub(name); nerr == nil {
			if seen++; r.rand.IntN(seen) == 0 {
				next, sub, err = sub, next, nil
			}
			if next != nil {
				next.Close()
			}
		}
		return nil
	})
	return sub, err
}

// move makes one of the moves on an entry of d, or plants one.
func (r *raid) move(d *safefs.Dir, names []string) {
	r.moves++
	own := fmt.Sprintf("%s%d-%d", mark, r.number, r.moves)
	planted := len(r.plants) > 0 && r.rand.IntN(3) == 0
	if planted {
		names = r.plants
	}
	if len(names) == 0 {
		return
	}
	name := names[r.rand.IntN(len(names))]
	info, err := d.Lstat(name)
	switch {
	case err != nil && planted:
		r.count(r.plant(d, name))
	case err != nil:
	case r.rand.IntN(8) == 0:
		r.count(r.chmod(d, name, uint32(info.Mode().Perm())))
	case r.target.Destroy && info.Mode().IsRegular() && r.rand.IntN(8) == 0:
		r.count(r.destroy(d, name))
	case r.rand.IntN(8) == 0:
		r.count(r.moveAway(d, name, own))
	default:
		r.count(r.swap(d, name, own))
	}
}

// count takes what a move returns.
func (r *raid) count(move string, err error) {
	if err == nil {
		r.tally[move]++
	}
}

// pause gives the program under test a moment to fall into the trap.
func (r *raid) pause() {
	switch r.rand.IntN(16) {
	case 0:
		unix.Nanosleep(&unix.Timespec{Nsec: r.rand.Int64N(500_000)}, nil)
	case 1, 2, 3, 4, 5, 6, 7:
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // without the scheduler of Go, which has more to do
	}
}

// plant takes a name before the program does, for a moment.
func (r *raid) plant(d *safefs.Dir, name string) (move string, err error) {
	trap, err := r.lay(d, name)
	if err != nil {
		return "", err
	}
	r.pause()
	return "plant " + trap.kind, trap.remove(d, name)
}

// swap exchanges an entry for a trap and back.
func (r *raid) swap(d *safefs.Dir, name, own string) (move string, err error) {
	trap, err := r.lay(d, own)
	if err != nil {
		return "", err
	}
	if err = exchange(d, name, own); err == nil {
		r.pause()
		if exchange(d, name, own) != nil { // gone: bring back what it was
			return "swap for " + trap.kind, d.Rename(own, name, false)
		}
	}
	return "swap for " + trap.kind, errors.Join(err, trap.remove(d, own))
}

func exchange(d *safefs.Dir, a, b string) error {
	return unix.Renameat2(d.Fd(), a, d.Fd(), b, unix.RENAME_EXCHANGE)
}

func (r *raid) moveAway(d *safefs.Dir, name, own string) (move string, err error) {
	if err = d.Rename(name, own, false); err == nil {
		r.pause()
		err = d.Rename(own, name, false)
	}
	return "move away", err
}

func (r *raid) chmod(d *safefs.Dir, name string, was uint32) (move string, err error) {
	mode := []uint32{0, 0o200, 0o400, 0o777}[r.rand.IntN(4)]
	if err = unix.Fchmodat(d.Fd(), name, mode, 0); err == nil {
		r.pause()
		err = unix.Fchmodat(d.Fd(), name, was, 0)
	}
	return "chmod", err
}

// destroy harms a file of the user's own.
func (r *raid) destroy(d *safefs.Dir, name string) (move string, err error) {
	if r.rand.IntN(2) == 0 {
		return "unlink", d.Unlink(name)
	}
	fd, err := unix.Openat(d.Fd(), name, unix.O_WRONLY|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || int(st.Uid) != r.target.UID {
		return "", errors.Join(err, errors.New("not his own"))
	}
	if r.rand.IntN(2) == 0 {
		return "truncate", unix.Ftruncate(fd, st.Size/2)
	}
	_, err = unix.Write(fd, []byte("From him Thu Jan  1 00:00:00 2026\n\nmore\n\n"))
	return "append", err
}
