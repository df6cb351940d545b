// Package mbox knows how a file holds messages, and how programs agree on who
// writes to it.
//
//	|lead|From_ line|header, empty line|body|separator|From_ line|header ...
//
// Scanner reads the messages in order. Whatever the file holds, what is before
// the first From_ line and the entries behind it tile it, without gap or overlap.
// Where a message ends, which header fields are the server's own, what a From_
// date means, no standard says: these are the rules of a Profile, one for each
// server, and Careful for archives. Tracker tells the state that a server keeps in
// those fields: flags, keywords, UIDs.
//
// Writer makes an mbox that its profile reads back as the same messages, and says
// of each what could not be so.
//
// Lock takes those of dotlock, fcntl and flock that the site's programs take,
// together or none, and waits while it holds none:
//
//	NAME.lock               the dotlock, content PID:HOST
//	.mailferry-RANDOM.lock  about to become it; that of a killed process stays
package mbox
