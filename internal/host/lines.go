package host

import (
	"bytes"
	"fmt"
)

// maxLine is how long a line may be: a message in a mail queue is one, with
// all of its recipients.
const maxLine = 16 << 20

// lines passes each complete line that is written to it to each, without its
// end, until each fails or a line is too long. What comes then is dropped: the
// writer is to live to its end.
type lines struct {
	each func(line []byte) error
	rest []byte
	err  error
}

func (l *lines) Write(p []byte) (int, error) {
	written := len(p)
	for l.err == nil {
		line, after, ok := bytes.Cut(p, []byte("\n"))
		if len(l.rest)+len(line) > maxLine {
			l.err = fmt.Errorf("a line of more than %d bytes", maxLine)
			break
		}
		l.rest = append(l.rest, line...)
		if !ok {
			break
		}
		l.err = l.each(l.rest)
		l.rest, p = l.rest[:0], after
	}
	return written, nil
}
