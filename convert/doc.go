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
//	inspect → stage → round (precopy, repeated) → sync → verify
//	→ cutover { hold → gate → lock → round (delta) → sync → verify → publish → flip → park → release }
//
// Inspector looks before anything is written (inspect*.go, plan.go). A round
// makes staging equal to the mailboxes (round.go, filler.go, manifest.go), and
// readback.go proves it. The cutover (cutover.go) is undone by whatever goes
// wrong before the flip; what a kill leaves of it, Recover resolves from
// semaphore, staging record and inodes (recover.go). Audit compares what was
// parked with the Maildir as it is now (audit_*.go).
//
// Root chooses users, writes semaphores, journal and staging records. All else
// is done as the user, inside of safefs.AsUser: no goroutine is begun there, no
// program run, no path followed; internal/tools/aswork looks after that.
package convert
