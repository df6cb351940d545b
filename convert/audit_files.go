package convert

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"

	"mailferry/maildir"
)

// files knows the messages that lie in a folder, in 24 bytes for each: a name
// is put together again from the unique name, which the list of UIDs has, and
// the flags.
type files struct {
	list []file            // by key
	odd  map[uint64]string // by key: names that can't be put together

	repeats bool // some have one unique name
}

// file is one of them.
type file struct {
	key   uint64 // of the unique name
	flags maildir.Flags
	uid   uint32 // by the list of UIDs; 0: none
	state fileState
}

type fileState uint8

const (
	inNew    fileState = 1 << iota // lies in new, not in cur
	bare                           // has no info part
	odd                            // its name stands in files.odd
	hasUIDL                        // its line in the list of UIDs has a UIDL
	unread                         // go-maildir does not take it for a message
	repeated                       // another file has the unique name too
	taken                          // is a message of the mbox, under its own UID
	examined                       // is none, and was looked at
)

var keySeed = maphash.MakeSeed()

// keyOf makes a key of a unique name. Its seed is random, so that nobody can
// make two names of one key on purpose; among a million, two have one by chance
// in one case of 37 million.
func keyOf(unique string) uint64 { return maphash.String(keySeed, unique) }

// uniqueOf cuts the info part off.
func uniqueOf(name string) string {
	unique, _, _ := strings.Cut(name, ":")
	return unique
}

// add notes a file by its unique name and flags, as somebody read them from
// its name.
func (t *files) add(name, unique string, flags maildir.Flags, state fileState) {
	f := file{key: keyOf(unique), flags: flags, state: state}
	var buffer [64]byte
	switch info := name[min(len(unique), len(name)):]; {
	case info == "":
		f.state |= bare
	case info != string(flags.Append(append(buffer[:0], maildir.InfoPrefix...))):
		f.state |= odd
		if t.odd == nil {
			t.odd = map[uint64]string{}
		}
		t.odd[f.key] = name
	}
	t.list = append(t.list, f)
}

// name puts the name of a file together again.
func (t *files) name(f *file, unique string) string {
	switch {
	case f.state&odd != 0:
		return t.odd[f.key]
	case f.state&bare != 0:
		return unique
	}
	return unique + maildir.InfoPrefix + f.flags.String()
}

// sort ends the adding, and marks files of one unique name.
func (t *files) sort() {
	slices.SortFunc(t.list, func(a, b file) int { return cmp.Compare(a.key, b.key) })
	for i := 1; i < len(t.list); i++ {
		if t.list[i].key == t.list[i-1].key {
			t.repeats = true
			t.list[i].state |= repeated
			t.list[i-1].state |= repeated
		}
	}
}

// find returns the file of a unique name, nil if there is none.
func (t *files) find(key uint64) *file {
	i, found := slices.BinarySearchFunc(t.list, key, func(f file, key uint64) int { return cmp.Compare(f.key, key) })
	if !found {
		return nil
	}
	return &t.list[i]
}

// inherit takes over what was found out of files that an older listing has.
func (t *files) inherit(was *files) {
	if was == nil {
		return
	}
	i := 0
	for n := range t.list {
		f := &t.list[n]
		for i < len(was.list) && was.list[i].key < f.key {
			i++
		}
		if i < len(was.list) && was.list[i].key == f.key {
			f.uid = was.list[i].uid
			f.state |= was.list[i].state & (hasUIDL | taken | examined)
		}
	}
}

// others counts the files that are no messages of the mbox.
func (t *files) others() (n int) {
	for i := range t.list {
		if t.list[i].state&taken == 0 {
			n++
		}
	}
	return n
}
