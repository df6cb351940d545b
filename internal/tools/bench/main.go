// Command bench measures conversions, precopies, migrations, holds and deliveries
// against their peers, each run on a fresh ext4 image, all contenders in turn: A B C A B C.
//
//	make bench
//
// It needs root (loop mounts), mkfs.ext4 and the peers tar, rsync, mb2md, doveadm,
// procmail, maildrop, Postfix and strace.
// Everything lies below TMPDIR and is removed at the end, an interrupt included.
// The mounts are made in a mount namespace of their own and end with the process,
// so that even SIGKILL leaves no mount and no loop device, only that directory.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// config is what the command line says.
type config struct {
	mailferry   string
	out         string
	cases       string
	messages    int
	size        int
	bytes       int64
	seed        uint64
	rounds      int
	peerRounds  int
	peerTimeout time.Duration
	peers       bool
	uid         int
	share       float64
	agents      string
	deliveries  int
	mails       int
}

func parse() config {
	var c config
	flag.StringVar(&c.mailferry, "mailferry", "", "binary to measure; without it only the others run")
	flag.StringVar(&c.out, "out", "", "write the report to this file as well")
	flag.StringVar(&c.cases, "cases", "small,mixed,precopy,users,hold,back,memory,deliver,postfix", "cases to run")
	flag.IntVar(&c.messages, "messages", 100_000, "messages of the case small")
	flag.IntVar(&c.size, "size", 2048, "octets of each message of the case small")
	flag.Int64Var(&c.bytes, "bytes", 500<<20, "octets of the mailbox of the case mixed")
	flag.Uint64Var(&c.seed, "seed", 1, "of the mailboxes")
	flag.IntVar(&c.rounds, "rounds", 5, "rounds")
	flag.IntVar(&c.peerRounds, "peer-rounds", 2, "rounds in which the slow peers (mb2md, doveadm) take part")
	flag.DurationVar(&c.peerTimeout, "peer-timeout", 10*time.Minute, "after which a run is given up and the contender left out")
	flag.BoolVar(&c.peers, "peers", true, "run the slow peers")
	flag.IntVar(&c.uid, "uid", 65534, "user and group id that every contender runs under")
	flag.Float64Var(&c.share, "share", 1, "share of the users of the cases precopy, users, hold and memory")
	flag.StringVar(&c.agents, "agents", "bin", "directory of mailferry-deliver and mailferry-lmtp, for the cases deliver and postfix")
	flag.IntVar(&c.deliveries, "deliveries", 300, "deliveries of each contender of the case deliver")
	flag.IntVar(&c.mails, "mails", 1000, "messages of each run of the case postfix")
	flag.Parse()
	return c
}

func main() {
	if len(os.Args) == 4 {
		switch os.Args[1] {
		case bareArgument:
			exit(bareMain(os.Args[2], os.Args[3], os.Stdout))
		case bareCutoverArgument:
			exit(bareCutoverMain(os.Args[2], os.Args[3], os.Stdout))
		}
	}
	c := parse()
	if os.Getenv(insideVariable) == "" {
		exit(runInNamespace())
	}
	// Children die with the thread that started them.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, c)
	stop()
	exit(err)
}

func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

const insideVariable = "MAILFERRY_BENCH_INSIDE"

// runInNamespace runs this program again in a mount namespace of its own. The
// terminal's signals reach both; those sent to this process are handed on.
func runInNamespace() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("loop mounts need root")
	}
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s) // a process that has ended needs no signal
		}
	}()
	return cmd.Wait()
}

// run makes the scratch directory, measures the cases one by one and reports.
func run(ctx context.Context, c config) (err error) {
	scratch, err := os.MkdirTemp("", "mailferry-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := os.Chmod(scratch, 0o755); err != nil { // the contenders are not root
		return err
	}
	self, err := installSelf(scratch, &c)
	if err != nil {
		return err
	}

	out := io.Writer(os.Stdout)
	if c.out != "" {
		file, err := os.Create(c.out)
		if err != nil {
			return err
		}
		defer file.Close()
		out = io.MultiWriter(out, file)
	}
	l := &lab{config: c, scratch: scratch, self: self, out: out}
	cases, err := l.selectCases()
	if err != nil {
		return err
	}
	writeHead(out, c, scratch)
	for _, cs := range cases {
		if err := cs.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", cs.name, err)
		}
	}
	return nil
}

// lab is what all cases share.
type lab struct {
	config
	scratch string
	self    string // this program, where the contenders' user can run it
	out     io.Writer
}

// measurement is a case: it runs its contenders and writes its tables.
type measurement struct {
	name string
	run  func(context.Context) error
}

// selectCases picks the cases that the command line names.
func (l *lab) selectCases() (picked []measurement, err error) {
	known := map[string]func(context.Context) error{
		"precopy": l.precopy,
		"users":   l.users,
		"hold":    l.hold,
		"back":    l.back,
		"memory":  l.memory,
		"deliver": l.deliver,
		"postfix": l.postfix,
	}
	for _, cs := range conversions(l.config) {
		known[cs.name] = func(ctx context.Context) error { return l.convert(ctx, cs) }
	}
	for name := range strings.SplitSeq(l.cases, ",") {
		run := known[name]
		if run == nil {
			return nil, fmt.Errorf("no case %q", name)
		}
		picked = append(picked, measurement{name, run})
	}
	return picked, nil
}

// convert measures the conversion of one mailbox.
func (l *lab) convert(ctx context.Context, cs benchCase) error {
	b, err := prepare(ctx, l.config, cs, l.scratch, l.self)
	if err != nil {
		return err
	}
	results, err := b.measure(ctx)
	b.remove()
	if err != nil {
		return err
	}
	writeCase(l.out, b, results)
	return nil
}
