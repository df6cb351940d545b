package mailgen

import "strings"

// kind is the MIME structure of a message.
type kind int

const (
	plainASCII kind = iota
	eightBit
	latin1
	quotedPrintable
	alternative
	mixed
)

const (
	roomy  = 2048 // octets of content from which a message may have any header and oddity
	column = 76   // octets of a full line, RFC 2045 6.8
)

// kind draws a structure; large messages are large by their attachments.
func (g *generator) kind(size int) kind {
	switch {
	case size < roomy:
		return plainASCII
	case size >= 64<<10 || size >= 4096 && g.r.IntN(4) == 0:
		return mixed
	case size >= 4096 && g.r.IntN(3) == 0:
		return alternative
	}
	return kind(g.r.IntN(int(alternative)))
}

// part is a stretch of a body: lines that are given, or so many octets of text
// of the given words, or so many full lines of base64.
type part struct {
	lines  []string
	text   int
	words  []string
	base64 int
}

// size in octets.
func (p part) size(eol string) int {
	n := p.text + p.base64*(column+len(eol))
	for _, line := range p.lines {
		n += len(line) + len(eol)
	}
	return n
}

// plan lays the body out so that it fills d.body octets exactly: all parts have
// their size but one text, which takes the rest.
func (g *generator) plan(d *draft) []part {
	parts := []part{{lines: []string{"Id: " + d.ID}}, {words: wordsOf(d.kind)}}
	if d.size >= roomy {
		if lines := g.special(d); lines != nil {
			parts = append(parts, part{lines: lines}, part{text: 200, words: ascii})
		}
	}
	switch d.kind {
	case alternative:
		parts = g.alternative(d, parts)
	case mixed:
		parts = g.mixed(d, parts)
	}
	rest := d.body
	for _, p := range parts {
		rest -= p.size(d.eol)
	}
	for i := range parts {
		if p := &parts[i]; p.text == 0 && p.words != nil {
			p.text = rest
		}
	}
	return parts
}

func wordsOf(k kind) []string {
	switch k {
	case eightBit, alternative:
		return utf8Words
	case latin1:
		return latin1Words
	case quotedPrintable:
		return qpWords
	}
	return ascii
}

func (g *generator) alternative(d *draft, text []part) []part {
	parts := []part{{lines: []string{"--" + d.bound, "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", ""}}}
	parts = append(parts, text...)
	return append(parts,
		part{lines: []string{"", "--" + d.bound, "Content-Type: text/html", "", "<html><body>"}},
		part{text: d.body / 3, words: htmlWords},
		part{lines: []string{"</body></html>", "", "--" + d.bound + "--"}})
}

// mixed attaches one to three files, which leave at most 2 KiB to the text.
func (g *generator) mixed(d *draft, text []part) []part {
	parts := []part{{lines: []string{"This is a multi-part message in MIME format.", "--" + d.bound, "Content-Type: text/plain", ""}}}
	parts = append(parts, text...)
	files := 1 + g.r.IntN(3)
	lines := max(0, d.body-2560) / (column + 2)
	for range files {
		parts = append(parts, part{
			lines:  []string{"", "--" + d.bound, "Content-Type: application/octet-stream", "Content-Transfer-Encoding: base64", "Content-Disposition: attachment;", "\tfilename=\"" + g.words(ascii[:40], 1) + ".bin\"", ""},
			base64: lines / files,
		})
	}
	return append(parts, part{lines: []string{"", "--" + d.bound + "--"}})
}

// special are the lines that make a body hard to split: From_ lines quoted as
// the dialect does, and what the message's oddities ask for.
func (g *generator) special(d *draft) []string {
	var lines []string
	if d.Dialect != Plain && g.r.IntN(3) == 0 {
		for _, line := range []string{
			"", "From x Thu Nov 29 22:33:52 2001", "Subject: a mail within a mail", "",
			"From here on it is prose.", ">From a reply that quotes it", ">>From further back",
		} {
			lines = append(lines, d.Dialect.quote(line))
		}
	}
	if d.Odd&Prose != 0 {
		lines = append(lines, "", "From the beginning this line was not quoted,", "nor was this.")
	}
	if d.Odd&BodyCR != 0 {
		lines = append(lines, "a CR\rwithin a line", "one more CR before the end\r", "\r")
	}
	if d.Odd&NUL != 0 {
		lines = append(lines, "a NUL\x00 and two\x00\x00")
	}
	return lines
}

// quote is the line as a writer of the dialect stores it.
func (dialect Dialect) quote(line string) string {
	switch dialect {
	case Mboxo:
		if strings.HasPrefix(line, "From ") {
			return ">" + line
		}
	case Mboxrd:
		if strings.HasPrefix(strings.TrimLeft(line, ">"), "From ") {
			return ">" + line
		}
	}
	return line
}

// part writes p.
func (g *generator) part(d *draft, p part) {
	for _, line := range p.lines {
		g.out.body([]byte(line + d.eol))
	}
	for range p.base64 {
		g.line = append(g.appendToken(g.line[:0], column), d.eol...)
		g.out.body(g.line)
	}
	for left := p.text; left > 0; left -= len(g.line) {
		g.textLine(p.words, left, d.eol)
		g.out.body(g.line)
	}
}

// textLine makes a line of words, of which so many octets are left to fill: the
// last line fits exactly.
func (g *generator) textLine(words []string, left int, eol string) {
	n := 40 + g.r.IntN(column-40)
	exact := left-len(eol) <= n
	if exact {
		n = left - len(eol)
	} else if left-len(eol)-n <= len(eol) {
		n -= len(eol) // room for another line that is not empty
	}
	g.line = g.line[:0]
	for {
		w := words[g.r.IntN(len(words))]
		if len(g.line)+len(w) > n {
			break
		}
		g.line = append(append(g.line, w...), ' ')
	}
	g.line = g.line[:max(0, min(len(g.line)-1, n))]
	for exact && len(g.line) < n {
		g.line = append(g.line, '.')
	}
	g.line = append(g.line, eol...)
}
