package powerloss

import (
	"bufio"
	"os/exec"
	"testing"
)

// A program that was started with mounts of its own while the disk was mounted
// does not keep it.
func TestAProgramWithMountsOfItsOwnDoesNotKeepTheDisk(t *testing.T) {
	d, err := New(Filesystems[0], t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Mount(); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo ready; exec sleep 600")
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	if err := d.Unmount(); err != nil {
		t.Error(err)
	}
}
