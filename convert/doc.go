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
package convert
