package main

import "strings"

// rules are what holds in a module.
type rules struct {
	entry      string   // AsUser; its argument number 1 is the work
	inside     []string // packages of which all runs as a user
	exceptions []exception
}

// exception allows one function one thing.
type exception struct{ in, what, why string }

var ours = rules{
	entry:  "mailferry/internal/safefs.AsUser",
	inside: []string{"mailferry/mbox", "mailferry/maildir", "mailferry/semaphore", "mailferry/internal/safefs", "mailferry/internal/message"},
	exceptions: []exception{
		{"mailferry/internal/safefs.inThread", goStatement, "it is the thread of the work itself"},
		{"mailferry/internal/safefs.inThread", "runtime.UnlockOSThread", "of the main thread, which was given no identity"},
		{"mailferry/mbox.flockHolder", "os.ReadFile", "/proc/locks is the kernel's"},
	},
}

// leaving are packages and functions that leave the thread or change it.
var leaving = map[string]string{
	goStatement:                       "the goroutine runs as root",
	"os/exec":                         "a program can regain root",
	"os.StartProcess":                 "a program can regain root",
	"syscall.StartProcess":            "a program can regain root",
	"syscall.ForkExec":                "a program can regain root",
	"syscall.Exec":                    "a program can regain root",
	"golang.org/x/sys/unix.Exec":      "a program can regain root",
	"golang.org/x/sync/errgroup":      "its goroutines run as root",
	"(*sync.WaitGroup).Go":            "the goroutine runs as root",
	"time.AfterFunc":                  "the function runs as root",
	"context.AfterFunc":               "the function runs as root",
	"runtime.UnlockOSThread":          "the thread would go on as the user, with other work",
	"syscall.AllThreadsSyscall":       "it changes all threads",
	"syscall.AllThreadsSyscall6":      "it changes all threads",
	"syscall.Setuid":                  "it changes all threads",
	"syscall.Setgid":                  "it changes all threads",
	"syscall.Setgroups":               "it changes all threads",
	"syscall.Setresuid":               "it changes all threads",
	"syscall.Setresgid":               "it changes all threads",
	"golang.org/x/sys/unix.Setuid":    "it changes all threads",
	"golang.org/x/sys/unix.Setgid":    "it changes all threads",
	"golang.org/x/sys/unix.Setresuid": "it changes all threads",
	"golang.org/x/sys/unix.Setresgid": "it changes all threads",
}

// byPath are functions that follow a path, by package.
var byPath = map[string]string{
	"os": "Chdir Chmod Chown Chtimes CopyFS Create CreateTemp DirFS Lchown Link Lstat Mkdir MkdirAll MkdirTemp " +
		"Open OpenFile OpenInRoot OpenRoot ReadDir ReadFile Readlink Remove RemoveAll Rename Stat Symlink Truncate WriteFile",
	"path/filepath":         "EvalSymlinks Glob Walk WalkDir",
	"syscall":               pathCalls,
	"golang.org/x/sys/unix": pathCalls,
}

const pathCalls = "Access Chdir Chmod Chown Creat Lchown Link Lstat Mkdir Mkfifo Mknod Open Readlink Rename Rmdir " +
	"Stat Statfs Symlink Truncate Unlink Utime Utimes UtimesNano"

// forbidden says why nothing that runs as a user may use the name; "" if it may.
func forbidden(name string) string {
	pkg, symbol := split(name)
	if why := leaving[name] + leaving[pkg]; why != "" {
		return why
	}
	for call := range strings.FieldsSeq(byPath[pkg]) {
		if symbol == call {
			return "a path leads where the user wants"
		}
	}
	return ""
}

// split parts a full name in package and symbol: "(*os/exec.Cmd).Run" in
// "os/exec" and "Cmd).Run".
func split(name string) (pkg, symbol string) {
	name = strings.TrimLeft(name, "(*")
	slash := strings.LastIndex(name, "/") + 1
	if dot := strings.Index(name[slash:], "."); dot >= 0 {
		return name[:slash+dot], name[slash+dot+1:]
	}
	return "", name
}
