package message

import (
	"strings"
	"testing"
)

func TestParseField(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       Field
		value      string // what stands behind the colon
	}{
		{"as servers write it", "Status: RO\n", Status, " RO\n"},
		{"names compare without regard to case", "sTATUS: RO\n", Status, " RO\n"},
		{"upper case", "X-IMAPBASE: 1 2\n", XIMAPbase, " 1 2\n"},
		{"a name that begins with another is its own", "X-IMAP: 1 2\n", XIMAP, " 1 2\n"},
		{"X-UID is not X-UIDL", "X-UID: 7\n", XUID, " 7\n"},
		{"X-UIDL is not X-UID", "X-UIDL: abc\n", XUIDL, " abc\n"},
		{"blanks before the colon are no part of the name", "Content-Length \t : 5\n", ContentLength, " 5\n"},
		{"no blank after the colon", "Content-Length:5\n", ContentLength, "5\n"},
		{"an empty value", "X-Keywords:\n", XKeywords, "\n"},
		{"the name at the end of the bytes", "Date:", Date, ""},
		{"a value with colons", "Date: Mon, 1 Jan 2024 10:11:12 +0000\n", Date, " Mon, 1 Jan 2024 10:11:12 +0000\n"},
		{"Message-ID", "Message-Id: <a@b>\n", MessageID, " <a@b>\n"},
		{"a field that nobody asks for", "Subject: Status: RO\n", Other, ""},
		{"of the same first letter", "Sender: a@b\n", Other, ""},
		{"a longer name", "Status-Of: R\n", Other, ""},
		{"a shorter name", "Statu: R\n", Other, ""},
		{"a blank inside the name", "Content Length: 5\n", Other, ""},
		{"a blank before the name: a folded line", " Status: R\n", Other, ""},
		{"no colon", "Status RO\n", Other, ""},
		{"a colon too far away", "Status" + strings.Repeat(" ", 60) + ": R\n", Other, ""},
		{"other letters of the same bits", "\x13tatus: R\n", Other, ""},
		{"letters beyond ASCII", "Statu\xd3: R\n", Other, ""},
		{"the empty line", "\n", Other, ""},
		{"nothing", "", Other, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, at := ParseField([]byte(tt.line))
			if f != tt.want {
				t.Errorf("ParseField(%q) is %q, want %q", tt.line, f, tt.want)
			}
			if f != Other && tt.line[at:] != tt.value {
				t.Errorf("ParseField(%q): the value is %q, want %q", tt.line, tt.line[at:], tt.value)
			}
		})
	}
}

func TestEveryFieldIsFoundByItsName(t *testing.T) {
	for f := Other + 1; int(f) < len(fieldNames); f++ {
		if got, _ := ParseField([]byte(f.String() + ": x\n")); got != f {
			t.Errorf("%q is found as %q", f, got)
		}
	}
}

func TestSetHoldsWhatItWasMadeOf(t *testing.T) {
	s := SetOf(Status, XUIDL)
	for f := Other; int(f) < len(fieldNames); f++ {
		if want := f == Status || f == XUIDL; s.Has(f) != want {
			t.Errorf("Has(%q) is %v", f, s.Has(f))
		}
	}
}

func TestIsHeaderLine(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       bool
	}{
		{"a field", "Subject: x\n", true},
		{"a field without value", "Subject:\n", true},
		{"blanks before the colon", "Subject \t: x\n", true},
		{"the field From, as mailers without a space write it", "From:a@b\n", true},
		{"From : p@q, which begins like a From_ line", "From : p@q\n", true},
		{"a quoted From_ line at the top of a header", ">From a@b Mon Jan  1 00:00:00 2024\n", true},
		{"a URL", "http://example.org/\n", false},
		{"punctuation", "X-*!(): 1\n", true},
		{"a From_ line", "From a@b Mon Jan  1 00:00:00 2024\n", false},
		{"prose with a colon later", "He said: no\n", false},
		{"prose", "Hello world\n", false},
		{"a folded line", " x: y\n", false},
		{"a tab first", "\tx: y\n", false},
		{"a colon first", ": x\n", false},
		{"blanks, then a colon", "  : x\n", false},
		{"a letter beyond ASCII", "Betreff\xfc: x\n", false},
		{"DEL", "a\x7f: x\n", false},
		{"no colon", "Subject\n", false},
		{"no colon and no line end", "Subject", false},
		{"the empty line", "\n", false},
		{"the empty line of a CRLF file", "\r\n", false},
		{"nothing", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := IsHeaderLine([]byte(tt.line)); got != tt.want {
				t.Errorf("IsHeaderLine(%q) is %v", tt.line, got)
			}
		})
	}
}

func TestIsBlankLine(t *testing.T) {
	for _, tt := range []struct {
		name, b string
		want    bool
	}{
		{"LF", "\nx", true},
		{"CRLF", "\r\nx", true},
		{"CR alone", "\rx", false},
		{"CR at the end", "\r", false},
		{"a blank", " \n", false},
		{"nothing", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := IsBlankLine([]byte(tt.b)); got != tt.want {
				t.Errorf("IsBlankLine(%q) is %v", tt.b, got)
			}
		})
	}
}
