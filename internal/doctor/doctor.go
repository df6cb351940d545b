// Package doctor finds out which programs deliver and serve mail on this host,
// and whether they follow the semaphore as the recipes of docs/routing have it.
//
// It reads configurations, by the programs that know how (postconf, doveconf,
// exim -bP) and in files of root's, and the limits of processes in /proc. It
// changes nothing, reads nothing in a home, and asks no server that runs. What it
// can't find out it says, and takes for nothing.
package doctor

import (
	"context"
	"fmt"
	"slices"

	"mailferry/docs/routing"
	"mailferry/internal/config"
)

// Severity is how much a finding matters.
type Severity string

const (
	Fine    Severity = "fine"    // as a recipe has it
	Note    Severity = "note"    // good to know
	Unknown Severity = "unknown" // could not be found out
	Do      Severity = "do"      // mail would be late, astray, or in a mailbox that nobody reads
)

// Finding is one thing that was found.
type Finding struct {
	About    string   `json:"about"` // program, or part of the host
	Severity Severity `json:"severity"`
	Code     string   `json:"code"` // see docs/routing/README.md
	Text     string   `json:"text"`
	Advice   string   `json:"advice,omitempty"`
}

// Program is one that is installed.
type Program struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Path    string `json:"path"`
}

// Report is what was found.
type Report struct {
	Programs []Program
	Findings []Finding
	Snippets []routing.Snippet // of recipes that fit this host and are not followed yet
}

// Count returns how many findings have a severity.
func (r *Report) Count(s Severity) (n int) {
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Examine looks at this host, for a site that is configured so. It fails only
// when it is interrupted.
func Examine(ctx context.Context, c *config.Config) (*Report, error) {
	return examine(ctx, thisHost(), c)
}

// examination is one at work.
type examination struct {
	ctx    context.Context
	system system
	config *config.Config
	Report

	dovecot *dovecot // nil if there is none, or it does not tell
	agents  []agent  // that deliver
	asUser  []agent  // of those, as the recipient from the start
	server  command  // of our LMTP server, by its unit
	lockers []locker
	window  bool // some mail is looked up before, and locked later
}

func examine(ctx context.Context, s system, c *config.Config) (*Report, error) {
	e := &examination{ctx: ctx, system: s, config: c}
	for _, step := range []func(){
		e.site, e.askDovecot, e.askPostfix, e.askExim, e.lookForSendmail, e.anyMTA,
		e.checkOurAgent, e.checkRules, e.checkAccess, e.checkSpool, e.checkLocks, e.checkSweep, e.userRules,
	} {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		step()
	}
	return &e.Report, ctx.Err()
}

func (e *examination) find(about string, s Severity, code, advice, format string, args ...any) {
	f := Finding{About: about, Severity: s, Code: code, Text: fmt.Sprintf(format, args...), Advice: advice}
	if !slices.Contains(e.Findings, f) {
		e.Findings = append(e.Findings, f)
	}
}

// suggest adds what a recipe writes, as this site's places have it, to what is
// printed; of only some files if they are named.
func (e *examination) suggest(recipe string, files ...string) {
	for _, s := range e.recipe(recipe) {
		if (len(files) == 0 || slices.Contains(files, s.File)) && !slices.Contains(e.Snippets, s) {
			e.Snippets = append(e.Snippets, s)
		}
	}
}

// anyMTA says so if nothing was found that would deliver mail.
func (e *examination) anyMTA() {
	for _, p := range e.Programs {
		if p.Name == postfixName || p.Name == eximName || p.Name == sendmailName {
			return
		}
	}
	e.find("MTA", Unknown, "no-mta", "", "neither Postfix nor Exim nor sendmail was found where they usually are: what delivers mail here, and how, is not known")
}

// userRules says what is not looked at.
func (e *examination) userRules() {
	e.find("users", Note, "user-rules", "",
		"their own rules (~/.forward, ~/.procmailrc, ~/.mailfilter) are not read here; plan reads them as their users, and names the mboxes in them (delivery-rule)")
}
