package maildir

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// example is the uidlist that facts about Dovecot 2.3.19 were gained with.
const example = `3 V1234567890 N500 Gdeadbeef0123456789abcdef01234567
10 P0000000a1f2e3d4c O3 :1600000001.M1P1.host,S=67,W=73
12 Pab"c:!#{~ O2 G00112233445566778899aabbccddeeff :1600000002.M2P1.host,S=67,W=73
15 O1 :1600000003.M3P1.host,S=67,W=73
20 P :1600000004.M4P1.host,S=67,W=73
33 W73 S67 :1600000005.5.host
45 :gonefile,S=1,W=1
`

var exampleGUID = [16]byte{0xde, 0xad, 0xbe, 0xef, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 1, 0x23, 0x45, 0x67}

var exampleEntries = []UIDEntry{
	{UID: 10, UIDL: "0000000a1f2e3d4c", Order: 3, Name: "1600000001.M1P1.host,S=67,W=73"},
	{UID: 12, UIDL: `ab"c:!#{~`, Order: 2, GUID: "00112233445566778899aabbccddeeff", Name: "1600000002.M2P1.host,S=67,W=73"},
	{UID: 15, Order: 1, Name: "1600000003.M3P1.host,S=67,W=73"},
	{UID: 20, UIDL: "1600000004.M4P1.host,S=67,W=73", Name: "1600000004.M4P1.host,S=67,W=73"},
	{UID: 33, VSize: 73, Size: 67, Name: "1600000005.5.host"},
	{UID: 45, Name: "gonefile,S=1,W=1"},
}

func TestParseUIDList(t *testing.T) {
	v3 := func(h UIDListHeader) UIDListHeader { h.Version = 3; return h }
	for _, tt := range []struct {
		name, in string
		want     UIDList
	}{
		{"example", example,
			UIDList{v3(UIDListHeader{UIDValidity: 1234567890, NextUID: 500, GUID: exampleGUID}), exampleEntries}},
		{"version 1, Courier's", "1 77 12\n3 a.b\n11 c d\n",
			UIDList{UIDListHeader{Version: 1, UIDValidity: 77, NextUID: 12}, []UIDEntry{{UID: 3, Name: "a.b"}, {UID: 11, Name: "c d"}}}},
		{"dsync's N1 is raised", "3 V1 N1\n7 :a\n",
			UIDList{v3(UIDListHeader{UIDValidity: 1, NextUID: 8}), []UIDEntry{{UID: 7, Name: "a"}}}},
		{"padded N", "3 V1 N0000000500\n",
			UIDList{v3(UIDListHeader{UIDValidity: 1, NextUID: 500}), nil}},
		{"unknown keys, blanks and CR are passed over", "3  V1   N9 Pxyz\r\n2   Xy  z?  O1  :a b\r\n",
			UIDList{v3(UIDListHeader{UIDValidity: 1, NextUID: 9}), []UIDEntry{{UID: 2, Order: 1, Name: "a b"}}}},
		{"a line without LF is not written yet", "3 V1 N9\n2 :a\n3 :b",
			UIDList{v3(UIDListHeader{UIDValidity: 1, NextUID: 9}), []UIDEntry{{UID: 2, Name: "a"}}}},
		{"a file listed twice has the later UID", "3 V1 N9\n2 :a\n3 :b\n4 :a:2,S\n",
			UIDList{v3(UIDListHeader{UIDValidity: 1, NextUID: 9}), []UIDEntry{{UID: 3, Name: "b"}, {UID: 4, Name: "a"}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseUIDList(strings.NewReader(tt.in))
			if err != nil || !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func TestParseUIDListRefusesWhatDovecotThrowsAway(t *testing.T) {
	for _, tt := range []struct{ name, in, where string }{
		{"empty", "", "line 1"},
		{"header without LF", "3 V1 N1", "line 1"},
		{"unknown version", "2 V1 N1\n", "line 1"},
		{"no UIDVALIDITY", "3 N1\n", "line 1"},
		{"next UID 0, the mark of an unfinished write", "3 V1 N0000000000 G" + strings.Repeat("a", 32) + "\n", "line 1"},
		{"UIDVALIDITY beyond 32 bits", "3 V4294967296 N1\n", "line 1"},
		{"mailbox GUID too short", "3 V1 N1 Gab\n", "line 1"},
		{"mailbox GUID not hex", "3 V1 N1 G" + strings.Repeat("x", 32) + "\n", "line 1"},
		{"UID 0", "3 V1 N1\n0 :a\n", "line 2"},
		{"UID not a number", "3 V1 N1\nx :a\n", "line 2"},
		{"UID 2^32-1", "3 V1 N1\n4294967295 :a\n", "line 2"},
		{"UIDs fall", "3 V1 N9\n5 :a\n4 :b\n", "line 3"},
		{"UID repeated", "3 V1 N9\n5 :a\n5 :b\n", "line 3"},
		{"no file name", "3 V1 N9\n5 P1 :\n", "line 2"},
		{"no colon", "3 V1 N9\n5 P1\n", "line 2"},
		{"slash in the file name", "3 V1 N9\n5 :a/b\n", "line 2"},
		{"version 1 with a UID at the next UID", "1 1 9\n9 a\n", "line 2"},
		{"endless line", "3 V1 N9\n5 :" + strings.Repeat("a", 1<<17) + "\n", "line 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseUIDList(strings.NewReader(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.where) {
				t.Errorf("got %+v, %v, want an error at %s", got, err, tt.where)
			}
		})
	}
}

func TestScanUIDListStopsAtTheCallersError(t *testing.T) {
	stop := errors.New("enough")
	var seen []uint32
	_, err := ScanUIDList(strings.NewReader(example), func(e UIDEntry) error {
		if seen = append(seen, e.UID); e.UID == 12 {
			return stop
		}
		return nil
	})
	if err != stop || !reflect.DeepEqual(seen, []uint32{10, 12}) {
		t.Errorf("saw %v, error %v", seen, err)
	}
}

// memFile is a file in memory.
type memFile struct{ bytes.Buffer }

func (m *memFile) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(m.Len()) {
		return 0, io.ErrShortWrite
	}
	return copy(m.Bytes()[off:], p), nil
}

func writeUIDList(t *testing.T, file UIDListFile, h UIDListHeader, entries []UIDEntry) error {
	t.Helper()
	w, err := NewUIDListWriter(file, h.UIDValidity, h.GUID)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := w.Add(e); err != nil {
			return err
		}
	}
	return w.Close(h.NextUID)
}

func TestUIDListWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dovecot-uidlist")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	header := UIDListHeader{UIDValidity: 1234567890, NextUID: 500, GUID: exampleGUID}
	if err := writeUIDList(t, file, header, exampleEntries); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	want := strings.NewReplacer("N500", "N0000000500", "W73 S67", "S67 W73").Replace(example)
	if err != nil || string(got) != want {
		t.Errorf("wrote %q, %v, want %q", got, err, want)
	}
}

func TestUnfinishedUIDListIsNotValid(t *testing.T) {
	var file memFile
	w, err := NewUIDListWriter(&file, 1, exampleGUID)
	if err != nil {
		t.Fatal(err)
	}
	for uid := uint32(1); file.Len() < 1<<17; uid++ { // beyond the buffer
		if err := w.Add(UIDEntry{UID: uid, Name: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ParseUIDList(&file); err == nil || !strings.Contains(err.Error(), "next UID 0") {
		t.Errorf("a uidlist that was not closed: %v", err)
	}
}

func TestUIDListWriterDoesNotGrow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dovecot-uidlist")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w, err := NewUIDListWriter(file, 1, exampleGUID)
	if err != nil {
		t.Fatal(err)
	}
	e := UIDEntry{UID: 1, Name: "1600000001.M000001P77Q3.host,S=48,W=53", UIDL: "0000000a1f2e3d4c"}
	allocs := testing.AllocsPerRun(10000, func() {
		if err := w.Add(e); err != nil {
			t.Fatal(err)
		}
		e.UID++
	})
	if allocs != 0 {
		t.Errorf("%v allocations per entry", allocs)
	}
}

func TestUIDListWriterRefuses(t *testing.T) {
	good := UIDEntry{UID: 5, Name: "a"}
	for _, tt := range []struct {
		name  string
		entry UIDEntry
	}{
		{"UID 0", UIDEntry{Name: "a"}},
		{"UID not rising", UIDEntry{UID: 4, Name: "b"}},
		{"UID too high", UIDEntry{UID: 1<<32 - 1, Name: "b"}},
		{"no name", UIDEntry{UID: 6}},
		{"name with info part", UIDEntry{UID: 6, Name: "b:2,S"}},
		{"name with slash", UIDEntry{UID: 6, Name: "b/c"}},
		{"name with LF", UIDEntry{UID: 6, Name: "b\n7 :c"}},
		{"UIDL with space", UIDEntry{UID: 6, Name: "b", UIDL: "x y"}},
		{"UIDL with 8-bit", UIDEntry{UID: 6, Name: "b", UIDL: "ü"}},
		{"UIDL with LF", UIDEntry{UID: 6, Name: "b", UIDL: "x\n"}},
		{"GUID with space", UIDEntry{UID: 6, Name: "b", GUID: "x y"}},
		{"negative size", UIDEntry{UID: 6, Name: "b", VSize: -1}},
		{"line beyond reading", UIDEntry{UID: 6, Name: "b", UIDL: strings.Repeat("x", 1<<16)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var file memFile
			w, err := NewUIDListWriter(&file, 1, exampleGUID)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Add(good); err != nil {
				t.Fatal(err)
			}
			if err := w.Add(tt.entry); err == nil {
				t.Fatalf("%+v was accepted", tt.entry)
			}
			if err := w.Close(6); err != nil {
				t.Fatal(err)
			}
			got, err := ParseUIDList(&file)
			if err != nil || !reflect.DeepEqual(got.Entries, []UIDEntry{good}) {
				t.Errorf("the file has %+v, %v", got, err)
			}
		})
	}
}

func TestUIDListWriterRefusesHeaders(t *testing.T) {
	for _, h := range []UIDListHeader{
		{UIDValidity: 0, NextUID: 2, GUID: exampleGUID},
		{UIDValidity: 1, NextUID: 2},
		{UIDValidity: 1, NextUID: 0, GUID: exampleGUID},
		{UIDValidity: 1, NextUID: 1, GUID: exampleGUID}, // UID 1 is taken
	} {
		if err := writeUIDList(t, &memFile{}, h, []UIDEntry{{UID: 1, Name: "a"}}); err == nil {
			t.Errorf("%+v was accepted", h)
		}
	}
}

// fullFile fails each write, as a full disk does.
type fullFile struct{ memFile }

func (*fullFile) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestUIDListWriterReportsAFullDisk(t *testing.T) {
	err := writeUIDList(t, &fullFile{}, UIDListHeader{UIDValidity: 1, NextUID: 2, GUID: exampleGUID}, nil)
	if err == nil {
		t.Error("no error")
	}
}

func FuzzUIDList(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("1 77 12\n3 a.b\n11 c d\n"))
	f.Add([]byte("3 V1 N1\n2 Xy P :a:2,S\n3 :a\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		list, err := ParseUIDList(bytes.NewReader(in))
		if err != nil {
			return
		}
		if list.GUID == [16]byte{} {
			list.GUID[0] = 1
		}
		var file memFile
		w, err := NewUIDListWriter(&file, list.UIDValidity, list.GUID)
		if err != nil {
			t.Fatal(err)
		}
		var kept []UIDEntry
		for _, e := range list.Entries {
			if w.Add(e) == nil { // else a name or UIDL that Dovecot does not write
				kept = append(kept, e)
			}
		}
		if err := w.Close(list.NextUID); err != nil {
			t.Fatal(err)
		}
		again, err := ParseUIDList(&file)
		if err != nil {
			t.Fatal(err)
		}
		list.Version, list.Entries = 3, kept
		if !reflect.DeepEqual(again, list) {
			t.Errorf("read %+v\nwas  %+v", again, list)
		}
	})
}
