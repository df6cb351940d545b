// Package maildir knows how a message becomes a file: names, flags, folders,
// and the files in which Dovecot keeps what a name can't hold.
//
//	<root>/cur/<unique>:2,FS     INBOX: complete messages, flags in the info part
//	<root>/new, <root>/tmp       empty in what this package writes
//	<root>/dovecot-uidlist       UIDs, UIDVALIDITY, POP3 UIDLs
//	<root>/dovecot-keywords      what the keyword letters a-z mean
//	<root>/subscriptions         subscribed folders
//	<root>/.A.B/ or <root>/A/B/  folder A/B, by layout, with the same files
//
// A Maildir is built under a staging name beside its final one, invisible to
// servers, and gets the final name by one rename when everything in it has
// been made durable. A killed run leaves a staging directory and nothing else.
package maildir
