package message

import "bytes"

// Rewriter turns a message as an mbox stores it into the message as its server
// showed it: without the fields that the server hides, without the CR of
// header lines. Nothing else changes; see metadata rules in docs/formats.md.
//
// The message is fed as pieces of its header, then pieces of its body. A piece
// ends at the end of a line, or inside a line too long to be held whole, but
// never between a CR and its LF.
type Rewriter struct {
	Hide    Set                         // fields to leave out
	LF      bool                        // drop the CR of CRLF in the body as well
	Unquote Quoting                     // take back what the mbox writer did to body lines that begin "From "
	Keep    Set                         // fields whose values are wanted
	Found   func(f Field, value []byte) // called once for each wanted field; folded lines are joined as they stand
	Emit    func(b []byte) error        // receives the bytes that remain, in order

	dropping bool // the field at hand is hidden
	inLine   bool // the last piece ended inside a line
	current  Field
	value    []byte
}

// Quoting is a writer's way to keep body lines from looking like From_ lines.
// No server takes it back when it serves a message, so doing it changes what
// clients know.
type Quoting uint8

// The ways, by the names of the mbox dialects.
const (
	Keep   Quoting = iota // leave body lines as they are
	MboxO                 // ">From " was "From "
	MboxRD                // as MboxO, and ">>From " was ">From ", and so on
)

// maxValue bounds what is kept of one value: enough for a list of a thousand
// keywords. What is longer is cut.
const maxValue = 64 << 10

// Reset makes r ready for the next message.
func (r *Rewriter) Reset() {
	r.dropping, r.inLine, r.current, r.value = false, false, Other, r.value[:0]
}

// Header rewrites a piece of the header; the empty line that ends the header
// belongs to it.
func (r *Rewriter) Header(b []byte) error {
	kept := 0 // b[kept:i] is to be emitted
	for i := 0; i < len(b); {
		line := b[i:]
		nl := bytes.IndexByte(line, '\n')
		if nl >= 0 {
			line = line[:nl+1]
		}
		was := r.dropping
		r.line(line, nl >= 0)
		switch {
		case was && !r.dropping:
			kept = i
		case !was && r.dropping:
			if err := r.emit(b[kept:i]); err != nil {
				return err
			}
		}
		i += len(line)
		if !r.dropping && nl > 0 && line[nl-1] == '\r' {
			if err := r.emit(b[kept : i-2]); err != nil {
				return err
			}
			kept = i - 1
		}
	}
	if r.dropping {
		return nil
	}
	return r.emit(b[kept:])
}

// line decides the fate of one header line and collects its value.
func (r *Rewriter) line(line []byte, whole bool) {
	starts := !r.inLine && line[0] != ' ' && line[0] != '\t'
	if starts {
		r.EndHeader()
	}
	r.inLine = !whole
	if starts {
		f, value := ParseField(line)
		r.dropping = r.Hide.Has(f)
		if r.Keep.Has(f) {
			r.current = f
			line = line[value:]
		}
	}
	if r.current != Other && len(r.value) == 0 {
		line = bytes.TrimLeft(line, " \t")
	}
	if r.current != Other && len(r.value) < maxValue {
		r.value = append(r.value, line[:min(len(line), maxValue-len(r.value))]...)
	}
}

// EndHeader reports the last field of a header to Found. Call it after the
// last piece of the header.
func (r *Rewriter) EndHeader() {
	r.inLine = false
	if r.current != Other {
		r.Found(r.current, bytes.Trim(r.value, " \t\r\n"))
	}
	r.current, r.value = Other, r.value[:0]
}

// Body rewrites a piece of the body.
func (r *Rewriter) Body(b []byte) error {
	if r.Unquote == 0 {
		return r.lineEnds(b)
	}
	kept := 0
	for i := 0; ; {
		j := bytes.Index(b[i:], quoted)
		if j < 0 {
			return r.lineEnds(b[kept:])
		}
		i += j
		first := i - quotes(b[:i])
		lineStart := first > 0 && b[first-1] == '\n' || first == 0 && !r.inLine
		if lineStart && (r.Unquote == MboxRD || first == i) {
			if err := r.lineEnds(b[kept:first]); err != nil {
				return err
			}
			kept = first + 1
		}
		i += len(quoted)
	}
}

var quoted = []byte(">From ")

// quotes counts the '>' that b ends with.
func quotes(b []byte) int { return len(b) - len(bytes.TrimRight(b, ">")) }

// lineEnds emits b, without the CRs that have to go.
func (r *Rewriter) lineEnds(b []byte) error {
	if len(b) > 0 {
		r.inLine = b[len(b)-1] != '\n'
	}
	for r.LF {
		i := bytes.Index(b, crlf)
		if i < 0 {
			break
		}
		if err := r.emit(b[:i]); err != nil {
			return err
		}
		b = b[i+1:]
	}
	return r.emit(b)
}

var crlf = []byte("\r\n")

func (r *Rewriter) emit(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	return r.Emit(b)
}
