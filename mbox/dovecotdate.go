package mbox

import "time"

// dovecotDate is the date of a From_ line by the grammar of Dovecot 2.3
// (src/lib-mail/mbox-from.c), measured as well: what it refuses is no
// separator to Dovecot, and what it computes is the INTERNALDATE.
type dovecotDate struct {
	stamp
	offset int  // seconds, with Dovecot's error: the minutes of +hhmm count as seconds
	zoned  bool // a numeric zone stood after the year
}

// time is the INTERNALDATE that Dovecot serves in the zone loc.
func (d dovecotDate) time(loc *time.Location) time.Time {
	if d.zoned {
		return d.stamp.time(time.UTC).Add(-time.Duration(d.offset) * time.Second)
	}
	return d.stamp.time(loc)
}

// reader takes one field after another off a line; at its end it gives zeros,
// which no field accepts.
type reader []byte

func (r reader) at(i int) byte {
	if i < len(r) {
		return r[i]
	}
	return 0
}

func (r *reader) skip(n int) { *r = (*r)[min(n, len(*r)):] }

// digits takes n digits.
func (r *reader) digits(n int, value *int) bool {
	if digits((*r)[:min(n, len(*r))]) != n {
		return false
	}
	*value = number((*r)[:n])
	r.skip(n)
	return true
}

// byte takes c.
func (r *reader) byte(c byte) bool {
	if r.at(0) != c {
		return false
	}
	r.skip(1)
	return true
}

// month takes a month's name and the blank after it.
func (r *reader) month(value *int) bool {
	if len(*r) < 4 || (*r)[3] != ' ' {
		return false
	}
	name := string((*r)[:3])
	if !monthOf(name, value) {
		if name != "???" {
			return false
		}
		*value = 1 // as mbox_parse_month does
	}
	r.skip(4)
	return true
}

// minStamp is "Thu Nov 29 22:33 2001", the shortest date that Dovecot looks at.
const minStamp = 21

// parseDovecotFrom reads what follows "From ". b goes on behind the line end,
// since Dovecot's length check does not stop there.
func parseDovecotFrom(b []byte) (sender string, d dovecotDate, ok bool) {
	n, ok := dovecotSender(b)
	if !ok {
		return "", d, false
	}
	r := reader(b[n:])
	for r.at(0) == ' ' {
		r.skip(1)
	}
	if len(r) < minStamp {
		return "", d, false
	}
	r.skip(4) // the weekday may say anything
	parse := d.asctime
	if c := r; !c.month(new(int)) {
		parse = d.rfc822
	}
	if !parse(&r) {
		return "", d, false
	}
	d.zone4(r)
	return string(b[:n]), d, !d.zoned || d.exists()
}

// exists reports whether the date, which a zone follows, is one of the
// calendar. Without a zone mktime makes 3 March of 31 February (utc-mktime.c).
func (d *dovecotDate) exists() bool {
	if d.sec == 60 {
		d.sec = 59
	}
	t := time.Date(d.year, time.Month(d.month), d.day, d.hour, d.min, d.sec, 0, time.UTC)
	return t.Day() == d.day && t.Hour() == d.hour && t.Minute() == d.min && t.Unix() != -1
}

// dovecotSender measures the sender: a run without blanks, or a quoted local
// part and what is joined to it.
func dovecotSender(b []byte) (n int, ok bool) {
	if len(b) > 0 && b[0] == '"' {
		escaped := false
		for n = 1; n < len(b) && (b[n] != '"' || escaped); n++ {
			if b[n] == '\r' || b[n] == '\n' {
				return 0, false
			}
			escaped = b[n] == '\\'
		}
		n++
	}
	for ; n < len(b) && b[n] != ' '; n++ {
		if b[n] == '\r' || b[n] == '\n' {
			return 0, false
		}
	}
	return min(n, len(b)), true
}

// asctime reads "Nov 29 22:33:52 PST 2001".
func (d *dovecotDate) asctime(r *reader) bool {
	if !r.month(&d.month) {
		return false
	}
	r.byte(' ')
	width := 2
	if r.at(1) == ' ' {
		width = 1
	}
	if !r.digits(width, &d.day) || !r.byte(' ') || !d.clock(r) || !r.byte(' ') {
		return false
	}
	if digits(*r) < 4 {
		// A zone, named or numeric, is passed over: it counts as local.
		for len(*r) > 0 && r.at(0) != ' ' {
			if r.at(0) == '\r' || r.at(0) == '\n' {
				return false
			}
			r.skip(1)
		}
		if len(*r) < 5 {
			return false
		}
		r.skip(1)
	}
	return r.digits(4, &d.year)
}

// rfc822 reads " 9 Nov 2002 22:33:52", the blank being what follows "Thu,".
func (d *dovecotDate) rfc822(r *reader) bool {
	r.skip(1)
	width := min(2, digits(*r))
	if !r.digits(max(1, width), &d.day) || !r.byte(' ') || !r.month(&d.month) || !r.digits(4, &d.year) {
		return false
	}
	r.skip(1)
	return d.clock(r)
}

// clock reads HH:MM or HH:MM:SS.
func (d *dovecotDate) clock(r *reader) bool {
	if d.day == 0 {
		d.day = 1
	}
	if !r.digits(2, &d.hour) || !r.byte(':') || !r.digits(2, &d.min) {
		return false
	}
	return !r.byte(':') || r.digits(2, &d.sec)
}

// zone4 reads " +hhmm" after the date.
func (d *dovecotDate) zone4(r reader) {
	sign := r.at(1)
	if r.at(0) != ' ' || sign != '+' && sign != '-' {
		return
	}
	r.skip(2)
	if digits(r) < 4 {
		return
	}
	d.zoned = true
	d.offset = number(r[:2])*3600 + number(r[2:4])
	if sign == '-' {
		d.offset = -d.offset
	}
}
