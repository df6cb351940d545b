package maildir

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		name, letters, want string
		flags               Flags
	}{
		{"none", "", "", 0},
		{"all system flags in ASCII order", "TSRPFD", "DFPRST", Draft | Flagged | Passed | Replied | Seen | Trashed},
		{"keywords follow system flags", "zaS", "Saz", Seen | Keyword(0) | Keyword(25)},
		{"repeats count once", "SSaa", "Sa", Seen | Keyword(0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := ParseFlags(tt.letters)
			if err != nil || f != tt.flags || f.String() != tt.want {
				t.Errorf("ParseFlags(%q) = %q, %v, want %q", tt.letters, f, err, tt.want)
			}
		})
	}
}

func TestParseFlagsNamesUnknownLetters(t *testing.T) {
	f, err := ParseFlags("SxAF!")
	if err == nil || !strings.Contains(err.Error(), `"A!"`) {
		t.Errorf("error %v does not name the letters A and !", err)
	}
	if want := Seen | Flagged | Keyword('x'-'a'); f != want {
		t.Errorf("flags %q, want %q", f, want)
	}
}

func TestKeywordOutsideLettersIsNone(t *testing.T) {
	for _, i := range []int{-1, 26, 1000} {
		if f := Keyword(i); f != 0 {
			t.Errorf("Keyword(%d) = %q, want none", i, f)
		}
	}
}

func TestNamerWritesTheName(t *testing.T) {
	n := NewNamer(time.Unix(1700000000, 999_998_500), 42, "mx.example.org")
	want := []string{
		"1700000000.M999998P42Q0.mx.example.org,S=53,W=58",
		"1700000000.M999999P42Q1.mx.example.org,S=0,W=0",
		"1700000001.M000000P42Q2.mx.example.org,S=7",
		"1700000001.M000001P42Q3.mx.example.org",
	}
	sizes := [][2]int64{{53, 58}, {0, 0}, {7, -1}, {-1, -1}}
	for i, s := range sizes {
		if got := string(n.Append(nil, s[0], s[1])); got != want[i] {
			t.Errorf("call %d: got %q, want %q", i, got, want[i])
		}
	}
}

func TestNamerEscapesTheHost(t *testing.T) {
	for _, tt := range []struct{ name, host, want string }{
		{"slash, colon and comma", "a/b:c,d", `a\057b\072c\054d`},
		{"line ends", "a\nb", `a\012b`},
		{"non-ASCII", "ü", `\303\274`},
		{"empty", "", "localhost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := string(NewNamer(time.Unix(1, 0), 2, tt.host).Append(nil, -1, -1))
			if want := "1.M000000P2Q0." + tt.want; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestNamesFitAFileName(t *testing.T) {
	n := NewNamer(time.Unix(99999999999, 0), 1<<31, strings.Repeat(":", 500))
	name := append(n.Append(nil, 1<<62, 1<<62), InfoPrefix...)
	if name = Flags(1<<32 - 1).Append(name); len(name) > maxFileName {
		t.Errorf("%d bytes: %q", len(name), name)
	}
}

func TestNamerBefore1970BeginsWithADigit(t *testing.T) {
	if got := string(NewNamer(time.Unix(-5, 0), 1, "h").Append(nil, -1, -1)); got != "0.M000000P1Q0.h" {
		t.Errorf("got %q", got)
	}
}

func TestNamerDoesNotAllocate(t *testing.T) {
	n := NewNamer(time.Now(), 123, "mail.example.org")
	buf := make([]byte, 0, 256)
	if allocs := testing.AllocsPerRun(1000, func() { buf = n.Append(buf[:0], 1<<40, 1<<40) }); allocs != 0 {
		t.Errorf("%v allocations per name", allocs)
	}
}

func TestNamesSortInOrderOfCalls(t *testing.T) {
	n := NewNamer(time.Unix(1700000000, 999_000_000), 9999, "h")
	var prev Name
	for i := range 3000 { // crosses a second and four lengths of Q
		name, err := ParseName(string(n.Append(nil, int64(i), -1)))
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && (!prev.Less(name) || name.Less(prev)) {
			t.Fatalf("%q is not before %q", prev.Unique, name.Unique)
		}
		prev = name
	}
}

func TestParseName(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		want       Name
	}{
		{"ours", "1700000000.M000012P3Q4.host,S=53,W=58:2,FSa",
			Name{"1700000000.M000012P3Q4.host,S=53,W=58", 1700000000, 12, 53, 58, Flagged | Seen | Keyword(0), ""}},
		{"without info part", "17.M1P2.host",
			Name{"17.M1P2.host", 17, 1, -1, -1, 0, ""}},
		{"qmail's", "1204680122.27c448.host",
			Name{"1204680122.27c448.host", 1204680122, -1, -1, -1, 0, ""}},
		{"M counts wherever it stands in the second field", "5.P2Q3M77.host",
			Name{"5.P2Q3M77.host", 5, 77, -1, -1, 0, ""}},
		{"an M of the host does not count", "5.1_0.Mail9",
			Name{"5.1_0.Mail9", 5, -1, -1, -1, 0, ""}},
		{"M without digits is 0", "5.Mx.h",
			Name{"5.Mx.h", 5, 0, -1, -1, 0, ""}},
		{"size with trailing bytes does not count", "5.h,S=12x,W=13",
			Name{"5.h,S=12x,W=13", 5, -1, -1, 13, 0, ""}},
		{"only the first size field counts", "5.h,S=x,S=12",
			Name{"5.h,S=x,S=12", 5, -1, -1, -1, 0, ""}},
		{"mark at the end is no size", "5.h,S=",
			Name{"5.h,S=", 5, -1, -1, -1, 0, ""}},
		{"Dovecot reads a mark before a comma as 0", "5.h,S=,W=3",
			Name{"5.h,S=,W=3", 5, -1, 0, 3, 0, ""}},
		{"size beyond int64 is none", "5.h,S=99999999999999999999:2,",
			Name{"5.h,S=99999999999999999999", 5, -1, -1, -1, 0, ""}},
		{"no leading number is 0", "abc:2,S",
			Name{"abc", 0, -1, -1, -1, Seen, ""}},
		{"unknown letters are kept apart", "5.h:2,SXf-",
			Name{"5.h", 5, -1, -1, -1, Seen | Keyword(5), "X-"}},
		{"flags end at a comma", "5.h:2,S,DT",
			Name{"5.h", 5, -1, -1, -1, Seen, ""}},
		{"another info syntax has no flags", "5.h:1,S",
			Name{"5.h", 5, -1, -1, -1, 0, ""}},
		{"info is at the last colon, unique name before the first", "5.h:x:2,T",
			Name{"5.h", 5, -1, -1, -1, Trashed, ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseName(tt.file)
			if err != nil || got != tt.want {
				t.Errorf("ParseName(%q)\n got %+v, %v\nwant %+v", tt.file, got, err, tt.want)
			}
		})
	}
}

func TestParseNameRefuses(t *testing.T) {
	for _, file := range []string{"", ":2,S", ".hidden", "..", "a/b", "a\x00b"} {
		if n, err := ParseName(file); err == nil {
			t.Errorf("ParseName(%q) = %+v, want an error", file, n)
		}
	}
}

func TestLessIsTheOrderOfDovecot(t *testing.T) {
	sorted := []string{
		"abc",             // no number is 0
		"9.M5P1.h",        // numbers, not text
		"10.M2P1.h:2,S",   // the info part does not matter
		"10.M10P9.h:2,",   // microseconds as numbers
		"10.M0000010PA.h", // leading zeros do not matter: then bytes
		"11.5.h",          // one without microseconds: bytes
		"11.M1.h",
		"11.M1P.h",
	}
	// "M10P9.h" and "M0000010PA.h" have equal times; '0' sorts before '1'.
	sorted[3], sorted[4] = sorted[4], sorted[3]
	var names []Name
	for _, s := range sorted {
		n, err := ParseName(s)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, n)
	}
	for i, a := range names {
		for j, b := range names {
			if got := a.Less(b); got != (i < j) {
				t.Errorf("%q < %q: got %v", a.Unique, b.Unique, got)
			}
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{
		"1700000000.M000012P3Q4.host,S=53,W=58:2,FSa", "1.h:2,", "a,S=,W=:1:2,zz,x", "5.M.h,S=18446744073709551616",
		"99999999999999999999.M99999999999999999999.h", "é:2,\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, file string) {
		n, err := ParseName(file)
		if err != nil {
			return
		}
		if !strings.HasPrefix(file, n.Unique) || strings.Contains(n.Unique, ":") {
			t.Errorf("%q: unique name %q", file, n.Unique)
		}
		if n.Sec < 0 || n.Usec < -1 || n.Size < -1 || n.VSize < -1 {
			t.Errorf("%q: negative numbers in %+v", file, n)
		}
		if n.Less(n) {
			t.Errorf("%q is before itself", file)
		}
		again, err := ParseName(n.Unique + InfoPrefix + n.Flags.String())
		if err != nil || again.Flags != n.Flags || again.Unique != n.Unique || again.Usec != n.Usec || again.Sec != n.Sec {
			t.Errorf("%q: written again it reads %+v, was %+v (%v)", file, again, n, err)
		}
		letters := n.Flags.Append(nil)
		if !slices.IsSorted(letters) {
			t.Errorf("%q: flags %q are not in ASCII order", file, letters)
		}
	})
}

func BenchmarkNamer(b *testing.B) {
	n := NewNamer(time.Now(), 123, "mail.example.org")
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = n.Append(buf[:0], 2048, 2100)
	}
}
