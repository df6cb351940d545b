package deliver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"

	"mailferry/internal/message"
)

// piece is a line, or a part of a very long one.
type piece struct {
	text        []byte
	first, last bool // of the line's pieces
}

// pieceSize is how long a line may be to come in one piece, in bytes.
const pieceSize = 64 << 10

// eachPiece takes r apart; a CR and its LF stay together.
func eachPiece(ctx context.Context, r io.Reader, take func(piece) error) error {
	lines := bufio.NewReaderSize(r, pieceSize)
	for first := true; ; {
		text, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			err = nil
			if text[len(text)-1] == '\r' {
				text, err = text[:len(text)-1], lines.UnreadByte()
			}
		}
		if err != nil && err != io.EOF {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		last := err == io.EOF || text[len(text)-1] == '\n'
		if len(text) > 0 || !first {
			if err := take(piece{text, first, last}); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		first = last
	}
}

func isFrom(line []byte) bool { return bytes.HasPrefix(line, []byte("From ")) }

// isQuotable knows the lines to which mboxrd adds a ">".
func isQuotable(line []byte) bool { return isFrom(bytes.TrimLeft(line, ">")) }

// hidden are the header fields in which mbox servers keep what they know of a
// message: dovecot mbox-save.c leaves them out of what it saves.
var hidden = message.SetOf(message.ContentLength, message.Status, message.XIMAP, message.XIMAPbase,
	message.XKeywords, message.XStatus, message.XUID)

// forMbox makes of a message what an mbox can hold.
func (m *draft) forMbox(ctx context.Context) (*draft, error) {
	to := newDraft(m.dir)
	header, hiding := true, false
	err := eachPiece(ctx, m.content(), func(p piece) error {
		if p.first && header {
			switch {
			case message.IsBlankLine(p.text):
				header, hiding = false, false
			case p.text[0] != ' ' && p.text[0] != '\t':
				f, _ := message.ParseField(p.text)
				hiding = hidden.Has(f)
			}
		}
		if hiding {
			return nil
		}
		if p.first && isQuotable(p.text) {
			if err := to.add([]byte{'>'}); err != nil {
				return err
			}
		}
		return to.add(p.text)
	})
	if err == nil {
		err = to.finish(m.fromLine, nil)
	}
	if err != nil {
		to.close()
		return nil, err
	}
	return to, nil
}
