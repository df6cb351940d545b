package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// bareCutoverArgument makes this program a bare cutover of all users of a site:
// bench bare-cutover JOBS DIR.
const bareCutoverArgument = "bare-cutover"

// bareCutoverMain makes the calls of a cutover that reach the disk, for so many
// users at a time: no lock is taken, no mail is looked at, nothing is checked.
// They are those that strace shows of mailferry, in their order.
func bareCutoverMain(jobs, dir string, out io.Writer) error {
	n, err := strconv.Atoi(jobs)
	if err != nil {
		return err
	}
	homes, err := os.ReadDir(filepath.Join(dir, "tree/home"))
	if err != nil {
		return err
	}
	c, err := openBareCut(dir)
	if err != nil {
		return err
	}
	users := make([]*bareUser, len(homes))
	for i, h := range homes {
		if users[i], err = c.user(h.Name()); err != nil {
			return err
		}
	}
	unix.Sync()
	start, cpu := time.Now(), cpuTime(unix.RUSAGE_SELF)
	var group errgroup.Group
	group.SetLimit(n)
	for _, u := range users {
		group.Go(u.cutover)
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(bareReport{Wall: time.Since(start), CPU: cpuTime(unix.RUSAGE_SELF) - cpu})
}

// bareCut is what all users share: directories, and the journal.
type bareCut struct {
	spool, semaphores int
	journal           *os.File
	mu                sync.Mutex
	dir               string
}

func openBareCut(dir string) (c *bareCut, err error) {
	c = &bareCut{dir: dir}
	if c.spool, err = openDir(filepath.Join(dir, "tree/spool")); err != nil {
		return nil, err
	}
	if c.semaphores, err = openDir(filepath.Join(dir, "semaphores")); err != nil {
		return nil, err
	}
	c.journal, err = os.OpenFile(filepath.Join(dir, "state/journal.jsonl"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	return c, err
}

func openDir(path string) (int, error) {
	return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// bareUser is a user with an empty staging Maildir.
type bareUser struct {
	*bareCut
	name          string
	home, staging int
	err           error // the first; nothing is done after it
}

func (c *bareCut) user(name string) (u *bareUser, err error) {
	u = &bareUser{bareCut: c, name: name}
	if u.home, err = openDir(filepath.Join(c.dir, "tree/home", name)); err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(u.home, ".staging", 0o700); err != nil {
		return nil, err
	}
	u.staging, err = unix.Openat(u.home, ".staging", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return u, err
}

// cutover: prepare, hold, publish, flip, park.
func (u *bareUser) cutover() error {
	u.log("hold")
	for _, next := range []string{".to-maildir", ".to-mbox", ".to-hold"} {
		u.put(u.semaphores, u.name+next+".meta")
		u.put(u.semaphores, u.name+next)
	}
	u.set(".to-hold")
	u.mirror()
	u.do(unix.Fsync(u.staging))
	u.rename(u.home, ".staging", "Maildir")
	u.set(".to-maildir")
	u.mirror()
	u.rename(u.spool, u.name, u.name+".parked")
	u.do(unix.Unlinkat(u.semaphores, u.name+".to-mbox.meta", 0))
	u.do(unix.Unlinkat(u.semaphores, u.name+".to-mbox", 0))
	u.log("flip")
	u.log("done")
	return u.err
}

func (u *bareUser) do(err error) {
	if u.err == nil && err != nil {
		u.err = fmt.Errorf("%s: %w", u.name, err)
	}
}

// put makes a small file durable, but not its name.
func (u *bareUser) put(dir int, name string) {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		u.do(err)
		return
	}
	_, err = unix.Write(fd, []byte("maildir\n"))
	u.do(err)
	u.do(unix.Fsync(fd))
	u.do(unix.Close(fd))
}

// rename is durable.
func (u *bareUser) rename(dir int, from, to string) {
	u.do(unix.Renameat(dir, from, dir, to))
	u.do(unix.Fsync(dir))
}

// set gives the authority another value: who set it first, then what it is.
func (u *bareUser) set(next string) {
	u.rename(u.semaphores, u.name+next+".meta", u.name+".meta")
	u.rename(u.semaphores, u.name+next, u.name)
}

func (u *bareUser) mirror() {
	u.put(u.home, ".mailstate.next")
	u.rename(u.home, ".mailstate.next", ".mailstate")
}

func (u *bareUser) log(phase string) {
	line := fmt.Appendf(nil, `{"time":"%s","user":%q,"phase":%q}`+"\n", time.Now().Format(time.RFC3339Nano), u.name, phase)
	u.mu.Lock()
	defer u.mu.Unlock()
	_, err := u.journal.Write(line)
	u.do(err)
	u.do(u.journal.Sync())
}
