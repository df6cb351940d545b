package convert

import (
	"testing"

	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
)

func TestARateIsThatOfTheMedianRehearsal(t *testing.T) {
	measured := Rate{PerMessage: 0.001, PerByte: 1e-6, Digest: 1e-7, Commit: 0.01}
	user := func(messages int, bytes int64, slower, reading float64) journal.Rehearsal {
		return journal.Rehearsal{Messages: messages, Bytes: bytes, Forth: slower * float64(measured.Write(messages, bytes)), Inbox: bytes, Reading: reading * float64(bytes)}
	}
	list := []journal.Rehearsal{user(10, 5000, 2, 3e-7), user(1000, 1<<20, 3, 4e-7), user(1, 9000, 70, 90e-7), {}}
	r := measured.rehearsed(list)
	if r.Rehearsed != 3 || r.Commit != measured.Commit || r.Digest != 4e-7 {
		t.Errorf("%+v", r)
	}
	if got, want := float64(r.Write(7, 1<<20)), 3*float64(measured.Write(7, 1<<20)); got < want*0.999 || got > want*1.001 {
		t.Errorf("%v, want %v", got, want)
	}
	if r := measured.rehearsed(nil); r != measured {
		t.Errorf("without any: %+v", r)
	}
}

func TestAPlanUsesTheFiguresOfRehearsals(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 3, Seed: 47})
	doRun(t, p, Rehearse, p.accounts...)
	plan, err := NewInspector(p.site, nil).Plan(t.Context(), p.accounts, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a := plan.Accounts[0]
	if plan.Rate.Rehearsed == 0 || a.Precopy != plan.Rate.Write(a.Messages, a.Bytes) || a.Hold <= 0 {
		t.Errorf("%+v; %v, %v", plan.Rate, a.Precopy, a.Hold)
	}
}
