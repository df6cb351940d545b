// Package journal remembers what runs did, for people and for the next run.
// Nothing in it is needed for safety: which format a user has is the
// semaphore's to say, and all the rest can be found again from the mail.
//
//	STATE/lock                     held with flock while a run works; says by whom, see Holder
//	STATE/runs/RUN/journal.jsonl   one Event a line, appended, synced at each Log
//	STATE/runs/RUN/summary.json    the Summary; missing when the run was killed
//	STATE/runs/RUN/quarantine/     USER/N.raw, the bytes of a message, and USER/N.json, a Quarantined
//	STATE/staging/USER.json        where the Maildir of a user is being built, see Staging
//
// RUN is 20261121T013000Z-VERB-xxxx: the second at which it began, and in hex
// the 65536th part of that second. Runs are ordered by these two.
//
// STATE is 0711, since the semaphores may lie below it; what is listed above
// is 0700 and 0600. All of it must belong to root, or to whom this process
// runs as, and be writable by nobody else.
//
// A killed run leaves its folder without a summary, perhaps with a torn last
// line, which readers take for nothing, and no lock: the kernel releases it.
package journal
