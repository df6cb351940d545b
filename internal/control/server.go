package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server answers requests until it is closed.
type Server struct {
	dir    *os.File // the state directory
	listen *net.UnixListener
	answer func(Request) Reply
	places chan struct{} // one for each client at a time

	mu      sync.Mutex
	closed  bool
	clients map[*net.UnixConn]bool
	work    sync.WaitGroup
}

// maxClients is how many are served at a time; the others wait.
const maxClients = 16

// Serve makes the socket in the state directory, in the place of a dead run's,
// and answers what comes by it. The caller holds the run lock. Answer is called
// by several goroutines.
func Serve(state string, answer func(Request) Reply) (*Server, error) {
	dir, err := openDir(state)
	if err != nil {
		return nil, err
	}
	listen, err := bind(dir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	s := &Server{dir: dir, listen: listen, answer: answer, places: make(chan struct{}, maxClients), clients: map[*net.UnixConn]bool{}}
	s.work.Go(s.accept)
	return s, nil
}

func openDir(state string) (*os.File, error) {
	fd, err := unix.Open(state, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: state, Err: err}
	}
	return os.NewFile(uintptr(fd), state), nil
}

// address is the socket by its directory's descriptor: a path may be longer than
// an address, of 108 bytes, can be.
func address(dir *os.File) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), Name)}
}

func bind(dir *os.File) (*net.UnixListener, error) {
	fd, path := int(dir.Fd()), filepath.Join(dir.Name(), Name)
	var st unix.Stat_t
	switch err := unix.Fstatat(fd, Name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return nil, fmt.Errorf("%s is there, and is no socket", path)
	case err == nil:
		if err := unix.Unlinkat(fd, Name, 0); err != nil {
			return nil, &fs.PathError{Op: "unlink", Path: path, Err: err}
		}
	case err != unix.ENOENT:
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	listen, err := net.ListenUnix("unix", address(dir))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	listen.SetUnlinkOnClose(false) // Close does
	if err := unix.Fchmodat(fd, Name, 0o600, 0); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "chmod", Path: path, Err: err}, listen.Close(), unix.Unlinkat(fd, Name, 0))
	}
	return listen, nil
}

// Close removes the socket and ends all that is said by it.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.clients {
		c.SetReadDeadline(time.Now()) // what is being answered still is
	}
	s.mu.Unlock()
	err := unix.Unlinkat(int(s.dir.Fd()), Name, 0)
	if err == unix.ENOENT { // an admin was faster
		err = nil
	}
	err = errors.Join(err, s.listen.Close())
	s.work.Wait()
	return errors.Join(err, s.dir.Close())
}

func (s *Server) accept() {
	for {
		s.places <- struct{}{}
		c, err := s.listen.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, for one: it passes
			<-s.places
			time.Sleep(100 * time.Millisecond)
			continue
		}
		s.work.Go(func() {
			defer func() { <-s.places }()
			defer c.Close()
			if s.enter(c) {
				s.serve(c)
				s.leave(c)
			}
		})
	}
}

// enter lets a client in who may speak to the run.
func (s *Server) enter(c *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !trusted(c) {
		return false
	}
	s.clients[c] = true
	return true
}

func (s *Server) leave(c *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
}

// trusted reports whether the peer is root, or who we are: the mode of the socket
// says the same, once it is set.
func trusted(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	var perr error
	err = raw.Control(func(fd uintptr) { peer, perr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return err == nil && perr == nil && (peer.Uid == 0 || peer.Uid == uint32(os.Geteuid()))
}

// serve answers the requests of a client, one after the other.
func (s *Server) serve(c *net.UnixConn) {
	in := bufio.NewReaderSize(c, maxRequest+1)
	for {
		if !s.await(c) {
			return
		}
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
		request, perr := ParseRequest(line)
		reply := Reply{}
		if perr != nil {
			reply.Error = perr.Error()
		} else {
			reply = s.answer(request)
		}
		if send(c, reply) != nil || err != nil { // of a line that is too long, the rest is no request
			return
		}
	}
}

// await gives a client time for his next line; none when the server closes.
func (s *Server) await(c *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && c.SetReadDeadline(time.Now().Add(patience)) == nil
}

// send writes a value as a line, within the time that the other side has.
func send(c net.Conn, v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		err = c.SetWriteDeadline(time.Now().Add(patience))
	}
	if err == nil {
		_, err = c.Write(append(line, '\n'))
	}
	return err
}
