// Package livemail is a mail server in use, for tests that move its users
// meanwhile: delivery agents, a queue that tries again, a real Dovecot that is
// routed by the semaphore at each login, IMAP and POP3 clients, and a ledger of
// what all of them were promised.
//
//	site := livemail.NewSite(t, dir, 40)
//	load := livemail.NewLoad(t, site, livemail.Options{Seed: 1})
//	load.Start()
//	... move users ...
//	load.Stop() // nothing is deferred any more
//	for _, wrong := range load.Account() {
//		t.Error(wrong)
//	}
//
// Every message has an id and a digest. The ledger holds a message from the
// moment at which its agent ended with 0 or its server said OK, until a server
// said OK to its removal. What was in doubt, because the connection was lost
// before the answer, may be either way; all else has to be true at the end:
// each message is there exactly once, where the semaphore says, as it was sent,
// with the flags that were set last, and under one UID all its life.
//
// It needs root, the packages dovecot-imapd, dovecot-pop3d, dovecot-auth-lua,
// procmail and maildrop, and changes nothing outside of its directory.
package livemail
