package watchdir

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watching is a directory that is watched.
func watching(t *testing.T) (w *Watcher, dir string, watch Watch) {
	t.Helper()
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	dir = t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if watch, err = w.Add(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	return w, dir, watch
}

// next is the name of the next event that is another one than the last.
func next(t *testing.T, w *Watcher, last string) Event {
	t.Helper()
	for {
		select {
		case e := <-w.Events():
			if e.Name != last || e.Lost {
				return e
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no event")
		}
	}
}

func TestWhatIsMadeOrWrittenIsTold(t *testing.T) {
	w, dir, watch := watching(t)
	path := filepath.Join(dir, "new")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := next(t, w, ""); e != (Event{Watch: watch, Name: "new"}) {
		t.Errorf("%+v", e)
	}
	if err := os.Rename(path, filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if e := next(t, w, "new"); e != (Event{Watch: watch, Name: "other"}) {
		t.Errorf("%+v", e)
	}
	f, err := os.OpenFile(filepath.Join(dir, "other"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("y"); err != nil {
		t.Fatal(err)
	}
	if e := next(t, w, ""); e.Name != "other" {
		t.Errorf("%+v", e)
	}
}

func TestAWatchIsRemovedAsOftenAsItWasAdded(t *testing.T) {
	w, dir, watch := watching(t)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if again, err := w.Add(int(f.Fd())); err != nil || again != watch {
		t.Fatal(again, err)
	}
	for i, want := range []bool{true, false} {
		if err := w.Remove(watch); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, string(rune('a'+i))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		select {
		case e := <-w.Events():
			if !want && e.Name == "b" {
				t.Errorf("it is watched still: %+v", e)
			}
		case <-time.After(200 * time.Millisecond):
			if want {
				t.Error("it is not watched any more")
			}
		}
	}
}

func TestAWatchOfADirectoryThatIsGone(t *testing.T) {
	w, dir, watch := watching(t)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	if err := w.Remove(watch); err != nil {
		t.Error(err)
	}
}

func TestCloseEndsTheEvents(t *testing.T) {
	w, dir, _ := watching(t)
	if err := os.WriteFile(filepath.Join(dir, "a"), nil, 0o600); err != nil { // nobody takes it
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for range w.Events() {
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// event is one as the kernel writes it.
func event(wd int32, bits uint32, name string, length int) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(wd))
	b = binary.NativeEndian.AppendUint32(b, bits)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(length))
	return append(b, append([]byte(name), make([]byte, max(length-len(name), 0))...)...)
}

func TestParseTellsOfLostEvents(t *testing.T) {
	b := slices.Concat(event(1, unix.IN_MODIFY, "alice", 16), event(-1, unix.IN_Q_OVERFLOW, "", 0), event(1, unix.IN_IGNORED, "", 0), event(2, unix.IN_MODIFY, "bob", 16))
	want := []Event{{Watch: 1, Name: "alice"}, {Lost: true}, {Watch: 2, Name: "bob"}}
	if got := parse(b); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(event(1, unix.IN_MODIFY, "alice", 16))
	f.Add(event(1, unix.IN_MODIFY, "alice", 1<<30)[:20])
	f.Add(event(-1, unix.IN_Q_OVERFLOW, "", 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range parse(b) {
			if e.Lost != (e == Event{Lost: true}) || !e.Lost && e.Name == "" {
				t.Errorf("%+v", e)
			}
		}
	})
}
