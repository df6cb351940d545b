package convert

import "fmt"

// Severity tells what a finding means for its user.
type Severity uint8

// The severities.
const (
	Info   Severity = iota // to know
	Warn                   // to look at; the user is converted
	Refuse                 // the user is left alone until it is put right
)

var severities = [...]string{Info: "info", Warn: "warn", Refuse: "refuse"}

// String returns the word of reports.
func (s Severity) String() string { return severities[s] }

// MarshalText writes the word of reports.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the word of reports.
func (s *Severity) UnmarshalText(word []byte) error {
	for i, w := range severities {
		if w == string(word) {
			*s = Severity(i)
			return nil
		}
	}
	return fmt.Errorf("%q is no severity", word)
}

// Finding is something that a look at an account brought up.
type Finding struct {
	Code     string   `json:"code"` // of the list in docs/findings.md
	Severity Severity `json:"severity"`
	Path     string   `json:"path,omitempty"`
	Text     string   `json:"text"`   // what was found
	Advice   string   `json:"advice"` // what to do
}
