// Package deliver puts one message where its user's semaphore says: at the end
// of his mbox, or into new of his Maildir. A message that it has reported as
// delivered is on the disk, whole and once; after any error there is nothing of
// it, so that the MTA, which still has it, tries again later.
//
// # Order
//
//  1. The message is collected, all of it: in memory, or in a file without a
//     name in the user's home. Nobody waits for a slow sender while the
//     mailbox is locked, and an mbox gets it by one write(2) or sendfile(2):
//     between two calls a killed process leaves a whole message or none. (In the
//     middle of that call the kernel stops where it is, as does a power loss: no
//     mbox is safe from that. The MTA has the message still, and delivers it
//     again behind the part, of which the site's server splits it.)
//  2. The semaphore is read; if it says hold, it is read again for a while.
//  3. The gate is taken, and the semaphore read once more: that counts, since
//     who changes it sets hold first and then takes the gate, which is kept from
//     here until the message is on the disk.
//  4. mbox: the site's locks, append, fsync; after an error the file is cut to
//     where it ended. A file that is no mbox to the site's server gets nothing:
//     nobody would see it there. Maildir: a file in tmp, fsync, rename into new,
//     fsync of the directory; after an error it is removed.
//
// Everything in the user's reach is touched as the user.
//
// # What becomes of the message
//
// A From_ line on top, with a date, which Postfix and Exim write for commands, is
// taken off; it tells the sender if nobody else does. If the first line of the
// message ends in CRLF, all CRLF become LF. A last line without end gets one. On
// top come Return-Path, if the sender is known, and Delivered-To, if the
// recipient's address is known and the header does not have it (RFC 5321 4.4;
// Postfix local(8)). A Return-Path of another sender is left out; one of the same
// stays, and no second one is added. From the environment Postfix tells the sender
// with "_" for many characters: a Return-Path that looks the same with them is his.
//
// In the mbox as many LFs stand before the message as the site's server needs to
// split there: behind a line end Dovecot needs none, others need an empty line. All
// lines that begin ">*From " get one more ">" (mboxrd), and the header fields in
// which mbox servers keep their own state are left out, since senders must not set
// it: Content-Length, Status, X-Status, X-UID, X-IMAP, X-IMAPbase, X-Keywords
// (dovecot mbox-save.c does so). All other bytes stay, NULs and lines of any
// length too.
package deliver
