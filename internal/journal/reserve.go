package journal

// lineSpace is what is reserved for a line, in bytes: a user name of 255 bytes
// and a sentence fit.
const lineSpace = 4096

// Reserved is space in the journal for lines that a full disk must not stop.
// It is used by one goroutine.
type Reserved struct {
	run   *Run
	lines int
}

// Reserve makes sure of space for lines. An error (ENOSPC) means that it is
// not the time to hold anybody.
func (r *Run) Reserve(lines int) (*Reserved, error) {
	if err := r.lines.promise(int64(lines) * lineSpace); err != nil {
		return nil, err
	}
	return &Reserved{r, lines}, nil
}

// Log appends an event and makes it durable, in reserved space while there is
// some. An event that is too long for that and for the disk goes without its
// findings and the end of its reason.
func (s *Reserved) Log(e Event) error {
	line, err := s.run.line(e)
	if err != nil {
		return err
	}
	if s.lines == 0 {
		return s.run.lines.append(line, 0)
	}
	if len(line) > lineSpace {
		if err := s.run.lines.append(line, 0); err == nil {
			return nil
		}
		if line, err = s.run.shortened(e); err != nil {
			return err
		}
	}
	if err := s.run.lines.append(line, int64(len(line))); err != nil {
		return err
	}
	s.lines--
	s.run.lines.forgive(lineSpace - int64(len(line)))
	return nil
}

// shortened encodes an event so that it fits into the space of a line.
func (r *Run) shortened(e Event) ([]byte, error) {
	e.Findings = nil
	reason := e.Reason
	for keep := lineSpace / 2; ; keep /= 2 {
		line, err := r.line(e)
		if err != nil || len(line) <= lineSpace || keep == 0 {
			return line, err
		}
		e.Reason = reason[:min(keep, len(reason))] + "..."
	}
}

// Release gives back what was not used.
func (s *Reserved) Release() {
	s.run.lines.forgive(int64(s.lines) * lineSpace)
	s.lines = 0
}
