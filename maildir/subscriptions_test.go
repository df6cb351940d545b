package maildir

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestParseSubscriptions(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		folders  Folders
		want     [][]string
	}{
		{"version 2 keeps order and what does not exist", "V\t2\n\nSent\nArch\t2023\nINBOX\n#news.x\n", plainFS,
			[][]string{{"Sent"}, {"Arch", "2023"}, {"INBOX"}, {"#news.x"}}},
		{"version 2 with listescape", "V\t2\n\n" + `with\2edot` + "\tkid\n", escaped,
			[][]string{{"with.dot", "kid"}}},
		{"version 2 with escaped TAB and LF", "V\t2\n\na\x01tb\x01nc\x011\n", plainFS,
			[][]string{{"a\tb\nc\x01"}}},
		{"version 1 beside mbox folders", "Sent\nArch/2023\n", plainFS,
			[][]string{{"Sent"}, {"Arch", "2023"}}},
		{"version 1 in Maildir++", "Sent\nArch.2023", maildirPP,
			[][]string{{"Sent"}, {"Arch", "2023"}}},
		{"version 1 with a folder called V", "V\nx\n", plainFS,
			[][]string{{"V"}, {"x"}}},
		{"version 2 without names", "V\t2\n\n", plainFS, nil},
		{"empty file", "", plainFS, nil},
		{"CRLF", "a\r\nb\r\n", plainFS, [][]string{{"a"}, {"b"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseSubscriptions(strings.NewReader(tt.in), tt.folders)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestParseMailboxList(t *testing.T) {
	in := "INBOX\nmail/Sent\nmail/Arch/2023\nmail/dir/\nother\nmail/\n"
	want := [][]string{{"INBOX"}, {"Sent"}, {"Arch", "2023"}, {"dir"}, {"other"}}
	got, err := ParseMailboxList(strings.NewReader(in), "mail/")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestWriteSubscriptions(t *testing.T) {
	long := strings.Repeat("x", 5000)
	names := [][]string{{"Sent"}, {"gone", "2023"}, nil, {"with.dot"}, {"~x"}, {"a", "cur"}, {"Entw&APw-rfe"}, {long}}
	for _, tt := range []struct {
		name    string
		folders Folders
		want    string
		refused []string
	}{
		{"Maildir++", maildirPP, "V\t2\n\nSent\ngone\t2023\nINBOX\na\tcur\nEntw&APw-rfe\n", []string{"with.dot", "~x", long}},
		{"listescape", escaped, "V\t2\n\nSent\ngone\t2023\nINBOX\nwith\\2edot\n\\7ex\na\tcur\nEntw&APw-rfe\n", []string{long}},
		{"fs", plainFS, "V\t2\n\nSent\ngone\t2023\nINBOX\nwith.dot\nEntw&APw-rfe\n", []string{"~x", "a/cur", long}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			refused, err := WriteSubscriptions(&out, names, tt.folders)
			if err != nil || out.String() != tt.want {
				t.Errorf("wrote %q, %v, want %q", out.String(), err, tt.want)
			}
			var left []string
			for _, r := range refused {
				left = append(left, strings.Join(r.Parts, "/"))
			}
			if !reflect.DeepEqual(left, tt.refused) {
				t.Errorf("refused %q, want %q", left, tt.refused)
			}
		})
	}
}

func TestWrittenSubscriptionsReadTheSame(t *testing.T) {
	names := [][]string{{"b"}, {"a", "x.y", `\2e`}, {"~", "/"}, {"INBOX"}, {"INBOX", "kid"}}
	for _, folders := range []Folders{escaped, escapedFS} {
		var out bytes.Buffer
		if refused, err := WriteSubscriptions(&out, names, folders); err != nil || refused != nil {
			t.Fatal(refused, err)
		}
		got, err := ParseSubscriptions(&out, folders)
		if err != nil || !reflect.DeepEqual(got, names) {
			t.Errorf("%+v: got %q, %v, want %q", folders, got, err, names)
		}
	}
}
