package maildir

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestMUTF7(t *testing.T) {
	for _, tt := range []struct{ name, utf8, mutf7 string }{
		{"empty", "", ""},
		{"ASCII stands for itself", "INBOX/a.b~\\ %", "INBOX/a.b~\\ %"},
		{"ampersand", "R&D&", "R&-D&-"},
		{"umlaut", "Entwürfe", "Entw&APw-rfe"},
		{"RFC 3501 5.1.3", "~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"},
		{"beyond the basic plane", "😀", "&2D3eAA-"},
		{"one shift for neighbours", "äö", "&AOQA9g-"},
		{"ampersand after a shift", "ä&", "&AOQ-&-"},
		{"minus after a shift", "ä-b", "&AOQ--b"},
		{"control characters and DEL", "a\tb\x7f", "a&AAk-b&AH8-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := EncodeMUTF7(tt.utf8); err != nil || got != tt.mutf7 {
				t.Errorf("EncodeMUTF7(%q) = %q, %v, want %q", tt.utf8, got, err, tt.mutf7)
			}
			if got, err := DecodeMUTF7(tt.mutf7); err != nil || got != tt.utf8 {
				t.Errorf("DecodeMUTF7(%q) = %q, %v, want %q", tt.mutf7, got, err, tt.utf8)
			}
		})
	}
}

func TestDecodeMUTF7RefusesOtherSpellings(t *testing.T) {
	for _, tt := range []struct{ name, in string }{
		{"raw UTF-8", "Entwürfe"},
		{"control character", "a\tb"},
		{"DEL", "a\x7f"},
		{"bare ampersand", "R&D"},
		{"ampersand at the end", "R&"},
		{"shift without end", "&AOQ"},
		{"shift for printable ASCII", "&AGE-"},
		{"shift for an ampersand", "&ACY-"},
		{"two shifts that could be one", "&AOQ-&APY-"},
		{"non-zero pad bits", "&APx-"},
		{"odd number of octets", "&AA-"},
		{"padding", "&AOQ=-"},
		{"slash of plain base64", "&U/BTFw-"},
		{"line end inside a shift", "&AO\nQ-"},
		{"lone high surrogate", "&2D0-"},
		{"lone low surrogate", "&3gA-"},
		{"NUL", "&AAA-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := DecodeMUTF7(tt.in); err == nil {
				t.Errorf("DecodeMUTF7(%q) = %q, want an error", tt.in, got)
			}
		})
	}
}

func TestEncodeMUTF7Refuses(t *testing.T) {
	for _, in := range []string{"a\xff", "\xed\xa0\x80", "a\x00b"} {
		if got, err := EncodeMUTF7(in); err == nil {
			t.Errorf("EncodeMUTF7(%q) = %q, want an error", in, got)
		}
	}
}

func TestDiskName(t *testing.T) {
	for _, tt := range []struct{ name, file, want string }{
		{"modified UTF-7 stays", "Entw&APw-rfe", "Entw&APw-rfe"},
		{"raw UTF-8 is encoded", "Entwürfe", "Entw&APw-rfe"},
		{"bare ampersand is encoded", "R&D", "R&-D"},
		{"encoded ampersand stays", "R&-D", "R&-D"},
		{"wrong pad bits are mended as LIST shows them", "Entw&APx-rfe", "Entw&APw-rfe"},
		{"what Dovecot can't decode is text", "bad&utf", "bad&-utf"},
		{"split shifts are text to Dovecot", "&AOQ-&APY-", "&-AOQ-&-APY-"},
		{"needless shift is text to Dovecot", "&AGE-", "&-AGE-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := DiskName(tt.file); err != nil || got != tt.want {
				t.Errorf("DiskName(%q) = %q, %v, want %q", tt.file, got, err, tt.want)
			}
		})
	}
	if got, err := DiskName("Entw\xfcrfe"); err == nil {
		t.Errorf("Latin-1 became %q, want an error", got)
	}
}

func FuzzMUTF7(f *testing.F) {
	for _, s := range []string{"", "R&D", "Entwürfe", "Entw&APw-rfe", "&APx-", "&2D3eAA-", "&2D0-", "a\xff", "&AO\nQ-", "&AOQ-&-&APY-", "\U0010ffff\u007f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if dec, err := DecodeMUTF7(s); err == nil {
			if again, err := EncodeMUTF7(dec); err != nil || again != s {
				t.Errorf("%q decodes to %q and encodes to %q, %v", s, dec, again, err)
			}
			if disk, err := DiskName(s); err != nil || disk != s {
				t.Errorf("valid %q gets the disk name %q, %v", s, disk, err)
			}
		}
		if enc, err := EncodeMUTF7(s); err == nil {
			if dec, err := DecodeMUTF7(enc); err != nil || dec != s {
				t.Errorf("%q encodes to %q and decodes to %q, %v", s, enc, dec, err)
			}
		} else if utf8.ValidString(s) && !strings.Contains(s, "\x00") {
			t.Errorf("EncodeMUTF7(%q): %v", s, err)
		}
		if disk, err := DiskName(s); err == nil {
			if _, err := DecodeMUTF7(disk); err != nil {
				t.Errorf("disk name of %q: %v", s, err)
			}
		}
	})
}
