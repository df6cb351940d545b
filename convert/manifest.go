package convert

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mailferry/internal/message"
	"mailferry/maildir"
)

// A folder of staging remembers what it was made of in two lists:
//
//	mailferry-manifest   one line for each message, in the order of the mbox
//	mailferry-mailbox    the mailbox as a whole, JSON; see mailboxState
//
// The second is removed before anything of the folder is changed and written
// when all is in accord again: a folder without it was left in the middle of a
// round, and is begun anew. A line of the first:
//
//	OFFSET LENGTH UID DATE DIGEST INO CTIME NAME
//
// Offset and length are the entry's in the mbox, date is in seconds since 1970,
// the digest is that of the message as served. Ino and ctime identify the file
// as it was when it was read back and had that digest; they are 0 before, and
// of fixed width, so that they are filled in where they stand.
const (
	manifestName = "mailferry-manifest"
	mailboxName  = "mailferry-mailbox"
)

// manifestVersion changes whenever a folder that an older program staged must
// not be continued.
const manifestVersion = 1

// record is what the manifest says of one message.
type record struct {
	offset, length int64
	uid            uint32
	date           int64
	digest         message.Digest
	file           maildir.FileID // without size, which is in the name
	name           string         // in cur
}

// append writes the record as a line.
func (r *record) append(dst []byte) []byte {
	dst = strconv.AppendInt(dst, r.offset, 10)
	for _, n := range [...]int64{r.length, int64(r.uid), r.date} {
		dst = strconv.AppendInt(append(dst, ' '), n, 10)
	}
	dst = hex.AppendEncode(append(dst, ' '), r.digest[:])
	dst = r.appendMark(append(dst, ' '))
	return append(append(append(dst, ' '), r.name...), '\n')
}

// appendMark writes INO and CTIME.
func (r *record) appendMark(dst []byte) []byte {
	return fmt.Appendf(dst, "%020d %020d", r.file.Ino, r.file.Ctime)
}

// markAt is where the mark begins, behind the start of the line.
func (r *record) markAt(line []byte) int64 { return int64(len(line) - len(r.name) - len(" ") - 41) }

var errManifest = errors.New("is no line of a manifest")

// parseRecord reads a line without its LF. The owner of a Maildir can write
// what he likes there, so that the name is checked to be one of cur.
func parseRecord(line []byte) (r record, err error) {
	fields := bytes.SplitN(line, []byte{' '}, 8)
	if len(fields) != 8 {
		return r, errManifest
	}
	var n [5]int64
	for i, at := range [...]int{0, 1, 2, 3, 6} {
		if n[i], err = strconv.ParseInt(string(fields[at]), 10, 64); err != nil || n[i] < 0 {
			return r, errManifest
		}
	}
	ino, err := strconv.ParseUint(string(fields[5]), 10, 64)
	if err != nil || len(fields[5]) != 20 || len(fields[6]) != 20 {
		return r, errManifest
	}
	digest := fields[4]
	name, err := maildir.ParseName(string(fields[7]))
	if len(digest) != 2*len(r.digest) || err != nil || n[2] > 1<<32-1 || name.Size < 0 {
		return r, errManifest
	}
	if _, err := hex.Decode(r.digest[:], digest); err != nil {
		return r, errManifest
	}
	r.offset, r.length, r.uid, r.date = n[0], n[1], uint32(n[2]), n[3]
	r.file, r.name = maildir.FileID{Ino: ino, Ctime: n[4], Size: name.Size}, string(fields[7])
	return r, nil
}

// unique is the name without the info part.
func (r *record) unique() string {
	unique, _, _ := strings.Cut(r.name, maildir.InfoPrefix)
	return unique
}

// mailboxState is the other list: what a round found and left.
type mailboxState struct {
	Version  int    `json:"version"`
	Settings string `json:"settings"` // what else decides the content of the files
	Source   string `json:"source"`
	Stat     stat   `json:"stat"`    // of the mbox, when it was opened
	Scanned  int64  `json:"scanned"` // when that was, ns since 1970

	UIDValidity uint32 `json:"uidvalidity"`
	Guessed     bool   `json:"guessed,omitempty"` // UIDVALIDITY is ours; the mbox recorded none
	NextUID     uint32 `json:"next_uid"`
	GUID        string `json:"guid"`
	Stamp       int64  `json:"stamp"`    // microseconds since 1970 that the next name may have
	Manifest    int64  `json:"manifest"` // size in bytes

	Messages    int           `json:"messages"`
	Bytes       int64         `json:"bytes"`
	Careful     int           `json:"careful"`
	Differs     int           `json:"differs"` // places where the careful reading differs
	Oddities    int           `json:"oddities"`
	Odd         Odd           `json:"odd,omitempty"` // these, by kind
	Left        []LeftKeyword `json:"left,omitempty"`
	Quarantined []Quarantined `json:"quarantined,omitempty"`
	Unchecked   int           `json:"unchecked"` // messages not yet read back
}

// Quarantined is a message that a Maildir can't hold.
type Quarantined struct {
	Mailbox string `json:"mailbox"`
	Offset  int64  `json:"offset"` // of its From_ line in the mbox
	Length  int64  `json:"length"` // with what separates it from the next
	UID     uint32 `json:"uid"`
	Reason  string `json:"reason"`
}

// stat is what tells whether a file was changed.
type stat struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"` // ns since 1970
	Ctime int64  `json:"ctime"`
}

func statOf(info fs.FileInfo) stat {
	st := info.Sys().(*syscall.Stat_t)
	return stat{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}

// racy is how long before the scan a change must lie to be told by the times
// of the file: clocks of filesystems tick, some once a second.
const racy = int64(time.Second)

// covers reports whether the mbox is what the round saw.
func (m *mailboxState) covers(now stat, settings string) bool {
	return m.Version == manifestVersion && m.Settings == settings && m.Stat == now && max(now.Mtime, now.Ctime)+racy < m.Scanned
}

// readState reads the folder's state; nil if there is none that this program
// can go on with.
func readState(folder *maildir.Folder, settings string) (*mailboxState, error) {
	m, err := decodeState(folder)
	if err != nil || m == nil || m.Settings != settings {
		return nil, err
	}
	manifest, err := folder.OpenList(manifestName)
	if err != nil {
		return nil, nil
	}
	defer manifest.Close()
	if st, err := manifest.Stat(); err != nil || st.Size() != m.Manifest {
		return nil, nil
	}
	return m, nil
}

// decodeState reads the folder's state; nil if it is not whole.
func decodeState(folder *maildir.Folder) (*mailboxState, error) {
	f, err := folder.OpenList(mailboxName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var m mailboxState
	if json.NewDecoder(f).Decode(&m) != nil || m.Version != manifestVersion {
		return nil, nil
	}
	return &m, nil
}

// writeState writes it, last of all.
func writeState(folder *maildir.Folder, m *mailboxState) error {
	r, err := folder.Revise(mailboxName)
	if err != nil {
		return err
	}
	content, err := json.Marshal(m)
	if err == nil {
		_, err = r.Write(append(content, '\n'))
	}
	if err != nil {
		return errors.Join(err, r.Close())
	}
	_, err = r.Commit()
	return err
}

// lookahead is how many records are searched for a message before it counts as
// new: so many may be expunged in a row without what follows being rewritten.
const lookahead = 1 << 16

// manifest reads the records of an earlier round in order, a bounded number of
// them at a time.
type manifest struct {
	file  *os.File
	lines *bufio.Reader
	ahead []record               // read and not yet taken
	index map[message.Digest]int // of ahead, plus taken; nil unless it was needed
	taken int                    // records that ahead has lost at its front
}

// openManifest opens the records of a state that lie behind so many bytes; of
// none, if it is nil.
func openManifest(folder *maildir.Folder, m *mailboxState, from int64) (*manifest, error) {
	if m == nil {
		return &manifest{}, nil
	}
	f, err := folder.OpenList(manifestName)
	if err != nil {
		return nil, err
	}
	return &manifest{file: f, lines: bufio.NewReaderSize(io.NewSectionReader(f, from, m.Manifest-from), 1<<16)}, nil
}

func (m *manifest) close() error {
	if m.file == nil {
		return nil
	}
	return m.file.Close()
}

// fill reads a record more, unless there is none.
func (m *manifest) fill() (more bool, err error) {
	if m.lines == nil {
		return false, nil
	}
	line, err := m.lines.ReadSlice('\n')
	if err == io.EOF && len(line) == 0 {
		m.lines = nil
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", m.file.Name(), err)
	}
	r, err := parseRecord(line[:len(line)-1])
	if err != nil {
		return false, fmt.Errorf("%s: %q %w", m.file.Name(), line, err)
	}
	if m.index != nil {
		m.note(len(m.ahead), r.digest)
	}
	m.ahead = append(m.ahead, r)
	return true, nil
}

func (m *manifest) note(i int, d message.Digest) {
	if at, known := m.index[d]; !known || at < m.taken {
		m.index[d] = m.taken + i
	}
}

// head returns the next record; nil at the end.
func (m *manifest) head() (*record, error) {
	if len(m.ahead) == 0 {
		if more, err := m.fill(); !more || err != nil {
			return nil, err
		}
	}
	return &m.ahead[0], nil
}

// drop takes the next record.
func (m *manifest) drop() {
	if d := m.ahead[0].digest; m.index != nil && m.index[d] == m.taken {
		delete(m.index, d)
	}
	m.ahead = m.ahead[1:]
	m.taken++
}

// find tells how many records lie before the next one with that digest; -1 if
// there is none within the lookahead.
func (m *manifest) find(d message.Digest) (int, error) {
	head, err := m.head()
	if head == nil || err != nil {
		return -1, err
	}
	if head.digest == d {
		return 0, nil
	}
	for len(m.ahead) < lookahead {
		if more, err := m.fill(); err != nil {
			return -1, err
		} else if !more {
			break
		}
	}
	if m.index == nil {
		m.index = make(map[message.Digest]int, len(m.ahead))
		for i := range m.ahead {
			m.note(i, m.ahead[i].digest)
		}
	}
	if at, ok := m.index[d]; ok && at >= m.taken {
		return at - m.taken, nil
	}
	return -1, nil
}
