package powerloss

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// guardScript takes the mounts away when this process has died. If it died while
// a thread of it was waiting for the disk, which is served by nobody then, it
// stays a zombie until the FUSE connection is aborted, which umount -f does.
const guardScript = `
while grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; do sleep 1; done
umount -f "$2"; umount -l "$3"; umount -l "$2"`

// guard begins to look after this process.
func (d *Disk) guard(behind string) error {
	d.guards = exec.Command("sh", "-c", guardScript, "guard", fmt.Sprint(os.Getpid()), behind, d.Dir)
	d.guards.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives what an interrupt ends
	if err := d.guards.Start(); err != nil {
		d.guards = nil
		return err
	}
	return nil
}

// dismiss ends that.
func (d *Disk) dismiss() error {
	if d.guards == nil {
		return nil
	}
	err := d.guards.Process.Kill()
	d.guards.Wait() // its end is the one that was asked for
	d.guards = nil
	return err
}
