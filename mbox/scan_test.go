package mbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/message"
)

// TestStatedOutcomes: what becomes of files at the edge of the format.
func TestStatedOutcomes(t *testing.T) {
	x := strings.Repeat("x", windowSize)
	checkRules(t, []rule{
		{"zero bytes are a mailbox without messages", everyProfile, "", []string{}},
		{"so are blank lines", everyProfile, "\n \t\r\n", []string{}},
		{"no newline at the end", "careful dovecot uw popa3d mailutils", fromA + "A: 1\n\nx\n\n" + fromC + "A: 2\n\nlast line", []string{"A: 1\n\nx\n", "A: 2\n\nlast line"}},
		{"a file that ends in a header", "careful uw popa3d solid", fromA + "A: 1\nB: 2", []string{"A: 1\nB: 2"}},
		{"many empty lines at the end are the last message's, but for one", "careful dovecot uw popa3d", fromA + "A: 1\n\nx\n\n\n\n", []string{"A: 1\n\nx\n\n\n"}},
		{"NULs are bytes", "careful dovecot uw popa3d", fromA + "A: \x00\n\n\x00\n\x00\n\n", []string{"A: \x00\n\n\x00\n\x00\n"}},
		{"bytes beyond ASCII", "careful dovecot uw popa3d", fromA + "A: \xff\xfe\n\n\xc3\x28\n\n", []string{"A: \xff\xfe\n\n\xc3\x28\n"}},
		{"a line longer than the window", "careful dovecot uw popa3d", fromA + "A: 1\n\n" + x + x + "\n\n" + fromC + "B: 1\n\ny\n\n", []string{"A: 1\n\n" + x + x + "\n", "B: 1\n\ny\n"}},
		{"header lines longer than the window", "careful dovecot uw", fromA + "A: " + x + "\nStatus: R" + x + "X-UID: 1" + x + "\n folded\nB: 1\n\ny\n\n", []string{"A: " + x + "\nB: 1\n\ny\n"}},
		{"a line of From and more than 8 KiB is text", "careful dovecot uw", fromA + "A: 1\n\nx\n\nFrom " + x + "\ny\n\n", []string{"A: 1\n\nx\n\nFrom " + x + "\ny\n"}},
		{"one line without an end", "careful dovecot uw", fromA + "A: 1\n\n" + x + x + x, []string{"A: 1\n\n" + x + x + x}},
	})
	wantOddity(t, fromA+"A: 1\n\nx", "careful", NoFinalNewline, int64(len(fromA+"A: 1\n\nx")))
	wantOddity(t, fromA+"A: 1\n\nx\n", "careful", NoFinalNewline)
	wantOddity(t, "", "careful", NoFinalNewline)
}

// arbitrary joins what is hard to read, in any order, at about the size of the
// smallest windows.
func arbitrary(r *rand.Rand) string {
	bits := []string{fromA, fromC, "From -\n", "From here on\n", "From x at y  Mon Jan  2 03:04:05 2023\r\n", "From a@b Mon Jan  2 03:04:05 2023 +0530\n",
		"\n", "\n", "\r\n", "Subject: x\n", "Status: RO\n", "X-UID: 5\r\n", " folded\n", "text\n", "text\r\n", "\x00\n", "last", "\r", mmdf, mmdf,
		strings.Repeat("x", 3000) + "\n", strings.Repeat("y", lookAhead+7), "From " + strings.Repeat("z", maxFromLine) + "\n",
		"X-Keywords: " + strings.Repeat("key ", 3000) + "\n", strings.Repeat("line\n", 1500)}
	var b strings.Builder
	b.WriteString([]string{"", fromA, fromC, mmdf, "\n\n" + fromA, crlf(fromA), "From -\nA: 1\n"}[r.IntN(7)])
	for range r.IntN(30) {
		if r.IntN(9) == 0 {
			b.WriteString("Content-Length: " + []string{"0", "5", "77", "3000", "9000", "99999"}[r.IntN(6)] + "\n")
			continue
		}
		b.WriteString(bits[r.IntN(len(bits))])
	}
	return b.String()
}

func TestAnyInputIsTiled(t *testing.T) {
	for seed := range uint64(400) {
		file := []byte(arbitrary(rand.New(rand.NewPCG(seed, 9))))
		for _, p := range profiles {
			checkScan(t, file, Options{Profile: p})
		}
		checkScan(t, file, Options{Profile: Dovecot, EOL: EOLLF, Quoting: message.Quoting(seed % 3)})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestTheWindowMakesNoDifference: down to the least that a decision looks at.
func TestTheWindowMakesNoDifference(t *testing.T) {
	for seed := range uint64(150) {
		file := arbitrary(rand.New(rand.NewPCG(seed, 10)))
		for _, p := range profiles {
			o := Options{Profile: p}
			want, wantErr := readAll(strings.NewReader(file), int64(len(file)), o, windowSize)
			for _, window := range []int{lookAhead + lookBehind, lookAhead + lookBehind + 1, 2*lookAhead + 3} {
				got, err := readAll(strings.NewReader(file), int64(len(file)), o, window)
				if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
					t.Fatalf("seed %d, %s, window %d: %v, want %v", seed, p.Name, window, err, wantErr)
				}
				got.tracker, want.tracker = nil, nil
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("seed %d, %s, window %d:\n%s\nwant\n%s", seed, p.Name, window, got.odd, want.odd)
				}
			}
		}
	}
}

// brokenReader fails from an offset on.
type brokenReader struct {
	data string
	from int64
	err  error
}

func (b brokenReader) ReadAt(p []byte, off int64) (int, error) {
	if off >= b.from {
		return 0, b.err
	}
	n := copy(p, b.data[off:b.from])
	if n < len(p) {
		return n, b.err
	}
	return n, nil
}

func TestFaultsOfTheFileArePassedOn(t *testing.T) {
	file := strings.Repeat(fromA+"A: 1\n\n"+strings.Repeat("line\n", 5000)+"\n", 100)
	whole := mustRead(t, file, "careful").contents
	for _, tt := range []struct {
		name string
		err  error
		want error
	}{
		{"cut by somebody meanwhile", io.EOF, ErrShrunk},
		{"cut, by a reader that says nothing", nil, ErrShrunk},
		{"an I/O error", io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
	} {
		for _, from := range []int64{0, 3, 100, windowSize, windowSize + 1, int64(len(file)) - 1} {
			for _, profile := range []string{"careful", "popa3d"} {
				r := brokenReader{file, from, tt.err}
				got, err := readAll(r, int64(len(file)), options(t, profile), windowSize)
				if !errors.Is(err, tt.want) {
					t.Errorf("%s from %d on, %s: %v, want %v", tt.name, from, profile, err, tt.want)
				}
				if n := len(got.contents); !slices.Equal(got.contents, whole[:n]) {
					t.Errorf("%s from %d on: the messages before it differ", tt.name, from)
				}
			}
		}
	}
}

// cutReader is a file that somebody cuts after so many reads.
type cutReader struct {
	data  string
	reads *int // that are still to come before
	to    int64
}

func (c cutReader) ReadAt(p []byte, off int64) (int, error) {
	data := c.data
	if *c.reads--; *c.reads < 0 {
		data = data[:c.to]
	}
	return strings.NewReader(data).ReadAt(p, off)
}

// A precopy reads while others write: an expunge cuts the file between two
// reads, at any place. Messages found before it are the same.
func TestAFileMayBeCutBetweenAnyTwoReads(t *testing.T) {
	var b strings.Builder
	for i := range 40 {
		body := strings.Repeat("From here on it is a text\n", i%3) + strings.Repeat("line\n", 37*i)
		length := ""
		if i%4 == 0 {
			length = fmt.Sprintf("Content-Length: %d\n", len(body))
		}
		fmt.Fprintf(&b, "%sSubject: %d\n%s\n%s\n", fromA, i, length, body)
	}
	file, size := b.String(), int64(b.Len())
	for _, p := range ProfileNames() {
		count := 1 << 30
		whole, err := readAll(cutReader{file, &count, 0}, size, options(t, p), smallWindow)
		if err != nil {
			t.Fatal(p, err)
		}
		reads := 1<<30 - count
		for _, to := range []int64{0, 1, 3, 40, size / 3, size / 2, size - 5} {
			for n := range reads {
				left := n
				got, err := readAll(cutReader{file, &left, to}, size, options(t, p), smallWindow)
				if err != nil && !errors.Is(err, ErrShrunk) {
					t.Fatalf("%s, cut to %d after %d reads: %v", p, to, n, err)
				}
				if n := len(got.contents); !slices.Equal(got.contents, whole.contents[:n]) || err == nil && n != len(whole.contents) {
					t.Fatalf("%s, cut to %d after %d reads: %d messages, %v", p, to, n, n, err)
				}
			}
		}
	}
}

func TestAfterAFaultNothingMoreIsFound(t *testing.T) {
	file := strings.Repeat(fromA+"A: 1\n\n"+strings.Repeat("line\n", 5000)+"\n", 100)
	s, err := NewScanner(brokenReader{file, windowSize + 5, io.ErrUnexpectedEOF}, int64(len(file)), options(t, "dovecot"))
	for err == nil {
		_, err = s.Next()
	}
	for range 3 {
		if e, again := s.Next(); !errors.Is(again, err) {
			t.Fatalf("after %v comes %+v, %v", err, e, again)
		}
	}
}

// failingWriter takes n bytes.
type failingWriter struct{ n int }

var errDiskFull = errors.New("no space left on device")

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.n -= len(b); w.n < 0 {
		return 0, errDiskFull
	}
	return len(b), nil
}

func TestWriteContentPassesErrorsOn(t *testing.T) {
	for _, size := range []int{10, 3 * windowSize} {
		file := fromA + "A: 1\r\n\n" + strings.Repeat("x", size) + "\n\n"
		s, err := NewScanner(strings.NewReader(file), int64(len(file)), options(t, "careful"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteContent(&failingWriter{size / 2}); err != errDiskFull {
			t.Errorf("%d bytes: %v", size, err)
		}
		var again bytes.Buffer
		if err := s.WriteContent(&again); err != nil || again.String() != "A: 1\n\n"+strings.Repeat("x", size)+"\n" {
			t.Errorf("%d bytes: the second attempt gives %d bytes, %v", size, again.Len(), err)
		}
	}
}

// endless is a mailbox that is generated as it is read: a head, then one byte
// again and again, then a tail.
type endless struct {
	head, tail string
	fill       byte
	size       int64
}

func (e endless) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), e.size-off))
	for i := range p[:n] {
		p[i] = e.fill
	}
	if off < int64(len(e.head)) {
		copy(p[:n], e.head[off:])
	}
	if tail := e.size - int64(len(e.tail)); off+int64(n) > tail {
		copy(p[max(0, tail-off):n], e.tail[max(0, off-tail):])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// heap is the most that f keeps in memory, in bytes, beside what is there before.
func heap(f func()) uint64 {
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		most := uint64(0)
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-tick.C:
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapInuse)
			case <-stop:
				peak <- most
				return
			}
		}
	}()
	f()
	close(stop)
	return max(<-peak, before.HeapInuse) - before.HeapInuse
}

func TestALongLineTakesBoundedMemory(t *testing.T) {
	next := "\n\n" + fromC + "A: 2\n\ny\n\n"
	for _, tt := range []struct {
		name       string
		size       int64
		head, tail string
		fill       byte
		hidden     int64 // bytes of the first message that are not shown
	}{
		{"1 GiB in a body", 1 << 30, "A: 1\n\n", next, 'x', 0},
		{"64 MiB in a hidden field", 64 << 20, "X-Keywords: ", "\n\nx" + next, ' ', 64<<20 - int64(len(fromA+"\nx"+next))},
		{"64 MiB in a visible field", 64 << 20, "A: ", "\n\nx" + next, 'x', 0},
		{"64 MiB behind From_", 64 << 20, "A: 1\n\nFrom ", next, 'x', 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var lengths, shown []int64
			used := heap(func() {
				s, err := NewScanner(endless{fromA + tt.head, tt.tail, tt.fill, tt.size}, tt.size, options(t, "dovecot"))
				for err == nil {
					var m *Entry
					if m, err = s.Next(); err == nil {
						lengths, shown = append(lengths, m.Length), append(shown, m.Size)
					}
				}
				if err != io.EOF {
					t.Error(err)
				}
			})
			second := int64(len("A: 2\n\ny\n"))
			first := tt.size - int64(len(fromA+fromC+"\n\n")) - second
			if !slices.Equal(lengths, []int64{first, second}) {
				t.Errorf("messages of %d bytes, want %d and %d", lengths, first, second)
			}
			if want := []int64{first - tt.hidden, second}; !slices.Equal(shown, want) {
				t.Errorf("shown with %d bytes, want %d", shown, want)
			}
			if used > 16<<20 {
				t.Errorf("%d MiB of heap", used>>20)
			}
		})
	}
}
