package maildir

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func tableOf(names map[int]string) *KeywordTable {
	t := &KeywordTable{}
	for i, n := range names {
		t.names[i] = n
	}
	return t
}

func TestCheckKeyword(t *testing.T) {
	for _, name := range []string{"$Forwarded", "NonJunk", "a}b", "x[1", strings.Repeat("k", 50), "'+,-./:;<=>?@^_`|~!#&"} {
		if err := CheckKeyword(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", `\Seen`, "a b", "a(b", "a)b", "a{b", "a%b", "a*b", `a"b`, "a]b", "ü", "a\n", "a\x7f", strings.Repeat("k", 51)} {
		if err := CheckKeyword(name); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

func TestLettersFollowTheListAndKeepTheFirstSpelling(t *testing.T) {
	table, left := NewKeywordTable([]string{"Junk", "$Label1", "JUNK", "bad name", "Work"})
	if want := tableOf(map[int]string{0: "Junk", 1: "$Label1", 2: "Work"}); !reflect.DeepEqual(table, want) {
		t.Errorf("got %q, want %q", table.names, want.names)
	}
	if !reflect.DeepEqual(left, []string{"bad name"}) {
		t.Errorf("left %q", left)
	}
	for name, want := range map[string]int{"junk": 0, "$LABEL1": 1, "Work": 2, "new": 3} {
		if got, ok := table.Letter(name); !ok || got != want {
			t.Errorf("Letter(%q) = %d, %v, want %d", name, got, ok, want)
		}
	}
}

func manyKeywords(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("kw%02d", i))
	}
	return names
}

func TestThe27thKeywordHasNoLetter(t *testing.T) {
	table, left := NewKeywordTable(manyKeywords(28))
	if !reflect.DeepEqual(left, []string{"kw26", "kw27"}) {
		t.Errorf("left %q", left)
	}
	if i, ok := table.Letter("KW25"); !ok || i != 25 {
		t.Errorf("the 26th: %d, %v", i, ok)
	}
	if i, ok := table.Letter("other"); ok {
		t.Errorf("a full table gave letter %d", i)
	}
}

func TestTheMostUsedKeywordsGetLetters(t *testing.T) {
	names := manyKeywords(30)
	uses := map[string]int{}
	for _, n := range names {
		uses[n] = 5
	}
	uses["kw00"], uses["kw10"], uses["kw20"] = 1, 0, 4
	uses["KW29"] = 100 // counts with kw29
	table, left := NewKeywordTableByUse(append(names, "bad name"), uses)
	if want := []string{"kw00", "kw10", "kw20", "kw28", "bad name"}; !reflect.DeepEqual(left, want) {
		t.Errorf("left %q, want %q: the least used, and of equals the last in the list", left, want)
	}
	for i, want := range map[int]string{0: "kw01", 8: "kw09", 9: "kw11", 25: "kw29"} {
		if got := table.Name(i); got != want {
			t.Errorf("letter %d is %q, want %q: letters follow the list", i, got, want)
		}
	}
}

func TestFewKeywordsByUseAreAsByList(t *testing.T) {
	names := []string{"a", "unused", "b"}
	got, left := NewKeywordTableByUse(names, map[string]int{"b": 9, "a": 1})
	want, _ := NewKeywordTable(names)
	if left != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, left %q, want %q", got.names, left, want.names)
	}
}

func TestKeywordFile(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     map[int]string
		out      string
	}{
		{"plain", "0 $Forwarded\n1 Junk\n", map[int]string{0: "$Forwarded", 1: "Junk"}, "0 $Forwarded\n1 Junk\n"},
		{"gaps stay", "25 z\n3 d\n", map[int]string{3: "d", 25: "z"}, "3 d\n25 z\n"},
		{"lines Dovecot passes over", "nospace\n26 x\n-1 x\n0 \n0 Junk\n1 junk\nx y\n", map[int]string{0: "Junk"}, "0 Junk\n"},
		{"the later of two names with one number", "0 a\n0 b\n", map[int]string{0: "b"}, "0 b\n"},
		{"names are taken as they are", "2 not an atom\r\n", map[int]string{2: "not an atom"}, "2 not an atom\n"},
		{"no LF at the end", "0 a", map[int]string{0: "a"}, "0 a\n"},
		{"empty", "", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, err := ParseKeywords(strings.NewReader(tt.in))
			if err != nil || !reflect.DeepEqual(table, tableOf(tt.want)) {
				t.Fatalf("got %q, %v, want %v", table.names, err, tt.want)
			}
			var out bytes.Buffer
			if _, err := table.WriteTo(&out); err != nil || out.String() != tt.out {
				t.Errorf("wrote %q, %v, want %q", out.String(), err, tt.out)
			}
		})
	}
}

func TestANewKeywordFillsTheFirstGap(t *testing.T) {
	table := tableOf(map[int]string{0: "a", 2: "c"})
	if got := table.Len(); got != 2 {
		t.Errorf("Len() = %d, want 2", got)
	}
	if i, ok := table.Letter("new"); !ok || i != 1 {
		t.Errorf("got %d, %v, want 1", i, ok)
	}
}

func FuzzKeywords(f *testing.F) {
	for _, s := range []string{"0 $Forwarded\n1 Junk\n", "25 z\n0 a\n0 b\n1 A\n", "0  x \n+1 y\n007 z\r\n", "\xff \xff\n3 \xff\n4 \xfe"} {
		f.Add([]byte(s), "Junk")
	}
	f.Fuzz(func(t *testing.T, in []byte, name string) {
		table, err := ParseKeywords(bytes.NewReader(in))
		if err != nil {
			return
		}
		if i, ok := table.Letter(name); ok && (!equalFold(table.Name(i), name) || Keyword(i) == 0) {
			t.Errorf("%q has letter %d, which is %q", name, i, table.Name(i))
		}
		var out bytes.Buffer
		if _, err := table.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		again, err := ParseKeywords(&out)
		if err != nil || !reflect.DeepEqual(again, table) {
			t.Errorf("read %q, %v, was %q", again.names, err, table.names)
		}
	})
}
