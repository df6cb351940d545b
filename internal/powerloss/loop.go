package powerloss

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// attach puts a file under a loop device, which the kernel lets go by itself
// should this process be killed.
func (d *Disk) attach(path string) error {
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	last := time.Now().Add(patience)
	for {
		err := d.attachFree(control, backing)
		// Somebody else may have taken it meanwhile.
		if !errors.Is(err, unix.EBUSY) || time.Now().After(last) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func (d *Disk) attachFree(control, backing *os.File) error {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return fmt.Errorf("a free loop device: %w", err)
	}
	device := fmt.Sprintf("/dev/loop%d", n)
	loop, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		return errors.Join(fmt.Errorf("attaching %s: %w", device, err), loop.Close())
	}
	d.loop, d.device = loop, device
	return nil
}
