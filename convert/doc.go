// Package convert knows in which order mail is moved, and how we know that it
// worked:
//
//	find → (per mailbox: scan → write) → lists → sync → publish
//
// Convert takes a mailbox file or a folder tree to a new Maildir. Until the
// last step, one rename, nothing has the final name; after an error or a kill
// there is at most a staging directory, which may be deleted. The source is
// only read. Verify compares the two afterwards by another way: names through
// go-maildir, bytes by digest, state through the lists that a server reads.
//
// # Accounts
//
// A Run moves the users of a live server, chunk by chunk:
//
//	inspect → stage → round (precopy, repeated) → sync → verify → cutover
//
// Inspector looks before anything is written (inspect*.go, plan.go). A round
// makes staging equal to the mailboxes (round.go, filler.go, manifest.go), and
// readback.go proves it. Audit compares what was parked with the Maildir as it
// is now (audit_*.go); a sweep takes late mail into it (sweep*.go), or behind a rollback
// into the mbox (sweep_back*.go); a retirement ends the soak (retire.go). A rehearsal does all that can be done beside the
// user's mail, in both directions, and compares (rehearse*.go).
//
// Root chooses users, writes semaphores, journal and staging records. All else
// is done as the user, inside of safefs.AsUser: no goroutine is begun there, no
// program run, no path followed; internal/tools/aswork looks after that.
//
// # Cutover
//
// What holds at each arrow (cutover.go; the way back, rollback.go, is the same
// the other way round):
//
//	pre-rounds   staging is durable, read back, and nearly the mbox; agents and
//	 ↓           servers use the mbox and know nothing
//	before-hold  what a server had held back in its indexes is in the mbox
//	 ↓
//	prepare      every file that the steps below need is made: they rename, and
//	 ↓           write a few bytes. Semaphore mbox
//	hold         durable: no delivery and no login begins that would use the
//	 ↓           mbox. The mirror says so, too
//	gate         who had read "mbox" before the hold, and takes the gate, has
//	 ↓           written, or has given up
//	drain        sessions are ended
//	 ↓
//	lock         nobody who locks can write. No program has a mailbox open, still
//	 ↓
//	delta        staging is the mbox, as it is
//	 ↓
//	sync         on the disk, too
//	 ↓
//	verify       every message proved by digest, UIDs, flags and counts by the
//	 ↓           lists; the mailboxes are those that were read, the locks ours
//	publish      the Maildir has its name, durably. The semaphore says hold: no
//	 ↓           server looks at it
//	flip         one durable rename: semaphore maildir. Up to here, whatever goes
//	 ↓           wrong brings the user back to mbox; from here on, nothing does
//	mirror       the user's own rules follow
//	 ↓
//	record       the soak record says which mboxes are going to be parked, and up
//	 ↓           to which byte the Maildir holds them
//	park         nothing has the old name: who wrote "mbox" late makes a new file,
//	 ↓           or writes behind the recorded byte; the sweep tells both from old mail
//	release      gate and locks
//	 ↓
//	sweep, soak, retire
//
// # State of a user
//
// What a crash can leave, and what Recover, which every run begins with, makes
// of it. Each row is made by hand in table_test.go, the last in
// sweep_back_recover_test.go:
//
//	semaphore  from     staging  Maildir    mbox               Recover
//	none       -        -        -          live               nothing; readers hold until enroll
//	mbox       -        -        -          live               nothing
//	mbox       -        any      -          live               nothing: staging is continued, or made anew
//	hold       mbox     any      -          live               mbox; staging stays
//	hold       mbox     -        published  live               unpublished: staging again; mbox
//	hold       maildir  -        live       parked or none     what rollback has made is removed; maildir
//	maildir    -        -        live       at its old place   parked; what came to it since is swept
//	maildir    -        -        live       parked             nothing: soak
//	maildir    -        -        live       new, at old place  left to the sweep, which delivers it
//	maildir    -        -        live       none               nothing: retired
//	mbox       -        -        live       live, by rollback  Maildir is set aside
//	mbox       -        -        aside      live, half swept   the late message is in the mbox, or not in it
//
// "from" is what the meta of the hold says it was before. A hold by hand has no
// run in its meta, and is left as it is; so is that of a run that lives, or of
// another host before its deadline. Whatever is in no row is refused, with what
// was seen, and the user stays as he is.
package convert
