package lmtp

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// inMemory is how big a message may be to stay in memory, in bytes.
const inMemory = 256 << 10

// stored is a message as it came: its beginning in memory, the rest, if there
// is one, in a file without a name.
type stored struct {
	memory []byte
	file   *os.File
	size   int64 // of the file
}

// store reads a message to its end.
func store(dir string, r io.Reader) (m *stored, err error) {
	m = &stored{}
	if m.memory, err = io.ReadAll(io.LimitReader(r, inMemory)); err != nil || len(m.memory) < inMemory {
		return m, err
	}
	if m.file, err = os.CreateTemp(dir, ".mailferry-lmtp-"); err != nil {
		return nil, err
	}
	err = os.Remove(m.file.Name())
	if err == nil {
		m.size, err = io.Copy(m.file, r)
	}
	if err != nil {
		return nil, errors.Join(err, m.file.Close())
	}
	return m, nil
}

// reader is one of several that may read at once.
func (m *stored) reader() io.Reader {
	if m.file == nil {
		return bytes.NewReader(m.memory)
	}
	return io.MultiReader(bytes.NewReader(m.memory), io.NewSectionReader(m.file, 0, m.size))
}

func (m *stored) close() {
	if m.file != nil {
		_ = m.file.Close() // nobody will read it
	}
}
