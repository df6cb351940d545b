package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mailferry/convert"
	"mailferry/internal/mailgen"
	"mailferry/semaphore"
)

// planSite makes a mail server whose users are enrolled, but for the last.
func planSite(t *testing.T, o mailgen.SiteOptions) *mailgen.SiteSummary {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	sum, err := mailgen.Site(filepath.Join(dir, "site"), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range sum.Users[:len(sum.Users)-1] {
		sem, err := semaphore.For(filepath.Join(sum.Dir, "semaphores", u.Name))
		if err == nil {
			err = sem.Enroll(semaphore.Meta{Epoch: 1})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return sum
}

// planned runs the verb.
func runPlan(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), append([]string{"plan"}, args...), &out, &errs); code != want {
		t.Errorf("plan %q: exit code %d, want %d\n%s%s", args, code, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func TestPlanPrintsALineForEachUser(t *testing.T) {
	sum := planSite(t, mailgen.SiteOptions{Users: 4, Seed: 1})
	out, errs := runPlan(t, exitSkipped, "--config", sum.Config, "--free-floor", "0", "--users-from", sum.NamesFile)
	lines := strings.Split(out, "\n")
	if !regexp.MustCompile(`^user +mailboxes +messages +size +inodes +time +hold +findings$`).MatchString(lines[0]) {
		t.Errorf("head: %q", lines[0])
	}
	for i, u := range sum.Users[:3] {
		row := regexp.MustCompile(fmt.Sprintf(`^%s +%d +%d +%s +\d+ +[\d.]+ m?s +[\d.]+ m?s *$`, u.Name, len(u.Mailboxes), u.Messages, size(u.Bytes)))
		if !row.MatchString(lines[i+1]) {
			t.Errorf("%q, want %s", lines[i+1], row)
		}
	}
	last := sum.Users[3].Name
	for _, want := range []string{
		last + " +- +- +- +- +- +- +not-enrolled",
		"total +.* 1 user refused, 0 migrated",
		last + ": refuse: not-enrolled: .*/semaphores/" + last + ": is not there\n  Run: mailferry enroll " + last,
		"filesystem of .*: 3 users, .*: enough",
		"4 users: 3 to move, 1 refused, 0 migrated",
		"precopy about .*, longest hold about .*, as measured in .*/state",
	} {
		if !regexp.MustCompile("(?m)^" + want).MatchString(out) {
			t.Errorf("%s is not in\n%s", want, out)
		}
	}
	if errs != "" {
		t.Errorf("stderr: %s", errs)
	}
	runPlan(t, exitDone, "--config", sum.Config, "--free-floor", "0", sum.Users[0].Name, sum.Users[2].Name)
}

func TestPlanAsJSON(t *testing.T) {
	sum := planSite(t, mailgen.SiteOptions{Users: 3, Seed: 2})
	out, _ := runPlan(t, exitSkipped, "--config", sum.Config, "--free-floor", "0", "--json", "--users-from", sum.NamesFile)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	for i, line := range lines[:3] {
		var a struct {
			MessageType string `json:"message_type"`
			convert.AccountPlan
		}
		u := sum.Users[i]
		if err := json.Unmarshal([]byte(line), &a); err != nil || a.MessageType != "account" || a.User != u.Name || a.Messages != u.Messages || a.Refused != (i == 2) {
			t.Errorf("%v: %s", err, line)
		}
		if i == 2 && (len(a.Findings) != 1 || a.Findings[0].Code != "not-enrolled" || a.Findings[0].Severity != convert.Refuse) {
			t.Errorf("%s", line)
		}
	}
	var total struct {
		MessageType string `json:"message_type"`
		convert.PlanTotal
		Rate    convert.Rate
		Volumes []convert.Volume
	}
	err := json.Unmarshal([]byte(lines[3]), &total)
	if err != nil || total.MessageType != "summary" || total.Users != 3 || total.Ready != 2 || total.Messages != sum.Users[0].Messages+sum.Users[1].Messages ||
		total.Codes["not-enrolled"] != 1 || len(total.Volumes) != 1 || total.Rate.Commit <= 0 {
		t.Errorf("%v: %s", err, lines[3])
	}
}

// Names of files reach the terminal spelled out.
func TestPlanPrintsNoControlCharacters(t *testing.T) {
	sum := planSite(t, mailgen.SiteOptions{Users: 2, Seed: 3})
	path := filepath.Join(sum.Users[0].Home, "mail", "\x1b[2Jnotes\n")
	if err := os.WriteFile(path, []byte("Dentist\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, sum.Users[0].UID, sum.Users[0].GID); err != nil {
		t.Fatal(err)
	}
	out, _ := runPlan(t, exitSkipped, "--config", sum.Config, "--free-floor", "0", "--users-from", sum.NamesFile)
	if strings.ContainsAny(strings.ReplaceAll(out, "\n", ""), "\x1b\r\x00") || !strings.Contains(out, `\x1b[2Jnotes\n`) {
		t.Errorf("%q", out)
	}
}

func TestPlanNeedsUsersAndAConfiguration(t *testing.T) {
	sum := planSite(t, mailgen.SiteOptions{Users: 2, Seed: 4})
	for _, args := range [][]string{
		{"--config", sum.Config},
		{"--config", sum.Config, "--all", "alice"},
		{"--config", filepath.Join(sum.Dir, "absent"), "alice"},
		{"--config", sum.Config, "--profile", "exchange", "alice"},
	} {
		if out, errs := runPlan(t, exitUsage, args...); out != "" || errs == "" {
			t.Errorf("%q: %q, %q", args, out, errs)
		}
	}
}
