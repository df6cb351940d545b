package convert

// code is what a finding's code stands for. Every code has one severity and
// one advice; docs/findings.md lists them all.
type code struct {
	severity Severity
	meaning  string // in general; a finding's text says it of the case at hand
	advice   string
}

// codes are all that a look at an account can bring up.
var codes = map[string]code{
	// The user.
	"no-user":           {Refuse, "The user database does not know the name.", "Correct the name, or leave it out of the list."},
	"user-invalid":      {Refuse, "The entry of the user database can't be used.", "Correct the entry: see the text."},
	"system-user":       {Refuse, "The user is root, has root's group, or a uid below min-uid.", "Leave the user out; for a real one with a low uid, lower min-uid."},
	"shared-uid":        {Refuse, "Two names have one uid: each could read and write the mail of the other.", "Give each a uid of his own, or leave one of them out of the user database that is used."},
	"collision":         {Refuse, "A path of this user is another user's as well.", "Put {user} or {home} into the path's template, or correct the homes."},
	"inspection-failed": {Refuse, "The account could not be looked at.", "See the text; plan again when it is put right."},

	// The semaphore.
	"not-enrolled":         {Refuse, "The user has no semaphore.", "Run: mailferry enroll USER"},
	"semaphore-unreadable": {Refuse, "The semaphore, or its directory, can't be read: readers hold his mail.", "If nobody was ever enrolled, run: mailferry enroll --all. If users were, mount or restore the directory of the semaphores first."},
	"held":                 {Refuse, "The semaphore says hold: deliveries are being deferred.", "If a run holds him, wait for it; if none is at work, run: mailferry recover. If he is held by hand, run: mailferry semaphore release USER"},
	"migrated":             {Info, "The semaphore says maildir: the user has been moved.", "Nothing. To look at the Maildir, run: mailferry verify USER"},
	"record-differs":       {Refuse, "The semaphore does not say maildir, and a record of mailferry says that the user was moved, or is on his way.", "Leave his Maildir and what is parked as they are: they may be all his mail. If a run was killed, run: mailferry recover. If the semaphore is lost, restore it, or run: mailferry enroll USER. If it was set by hand, say what is true: mailferry semaphore set USER maildir; or, if you have brought his mail back into the mboxes yourself, remove the record."},
	"mirror-differs":       {Warn, "The mirror in the home does not say what the semaphore says, which is what counts.", "Look who wrote it. The next change of the semaphore writes it anew."},

	// The home.
	"home-missing":   {Refuse, "The home is not there, or the user can't enter and list it.", "Mount it, or correct the user database. A home is never made."},
	"home-owner":     {Refuse, "The home belongs to somebody else.", "Give it to its user: chown USER HOME"},
	"home-writable":  {Refuse, "Others than the user can write into the home, and so put other things in the place of his mail.", "Take it from them: chmod go-w HOME, setfacl -b HOME. A group that nobody else is in may write."},
	"home-untrusted": {Refuse, "On the way to the home is a directory of another user's, one that everybody can write, or a symlink in such a one.", "Give the directory to root, mode 0755."},

	// INBOX and the folders.
	"no-mail":            {Info, "There is neither a spool nor a folder.", "Nothing: the user gets an empty Maildir. If he should have mail, correct the paths."},
	"spool-untrusted":    {Refuse, "On the way to the spool is a directory of another user's, or a symlink in a directory that others can write.", "Give the directory to root."},
	"folders-untrusted":  {Refuse, "On the way to the folders is a directory of another user's, or a symlink in a directory that others can write.", "Put the real directory there, and give it to the user."},
	"folders-unreadable": {Refuse, "The folders can't be listed.", "See the text; they must be a directory that the user can read."},
	"mbox-symlink":       {Refuse, "A mailbox is a symlink, which could lead to anybody's mail.", "Put the file itself there, or remove the link."},
	"mbox-hardlink":      {Refuse, "A mailbox file has a second name, which would still be written to afterwards.", "Find it with find -samefile, and remove one of the names."},
	"mbox-irregular":     {Refuse, "Where a mailbox should be is a directory, FIFO, socket or device.", "Move it away."},
	"mbox-owner":         {Refuse, "A mailbox belongs to somebody else.", "Find out whose mail it is; if it is the user's: chown USER FILE"},
	"mbox-unreadable":    {Refuse, "A mailbox, or a directory of folders, can't be read by its user.", "Give him the right to: chmod u+rw FILE, or u+rwx for a directory."},
	"mbox-mode":          {Warn, "Others can read or write a mailbox. The Maildir will be its user's alone.", "If others read it on purpose, give them access to the Maildir afterwards."},
	"mbox-changing":      {Warn, "A mailbox became shorter each time it was read. What the plan says of it is an estimate.", "Plan again when it is at rest."},
	"inbox-format":       {Refuse, "The spool is no mailbox to the server that reads it.", "See the text, and docs/boundaries.md."},
	"not-mailbox":        {Warn, "A file among the folders is no mailbox, and stays behind.", "Nothing, if it is none; else see the text."},
	"maildir-inside":     {Warn, "A Maildir lies among the folders, and stays behind.", "Move it into the new Maildir afterwards, if its mail is wanted there."},
	"folder-name":        {Refuse, "The layout of the Maildir can't hold the folder's name.", "See the text: use another layout, or rename the folder."},
	"folder-double":      {Refuse, "Two files are one folder, by their names or by a hard link.", "Rename or remove one of them."},
	"reading-differs":    {Warn, "The server's reading and the careful one find other messages in a mailbox.", "Look at the offsets; see docs/boundaries.md. The server's reading is kept."},

	// Where the Maildir will be.
	"maildir-empty":       {Info, "The Maildir is there, empty.", "Nothing: it gives way, and its mode is kept."},
	"maildir-foreign":     {Refuse, "The Maildir is there, is not empty, and mailferry did not make it; or it is another's.", "If its mail is wanted, merge it by hand; else move it away."},
	"maildir-mount":       {Refuse, "The Maildir is a mount point, which no rename replaces.", "Set maildir to a directory below it."},
	"maildir-irregular":   {Refuse, "Where the Maildir will be is a symlink or a file.", "Move it away."},
	"maildir-unreachable": {Refuse, "The directory that the Maildir will lie in is not there, another's, or the user can't write it.", "Make it, and give it to the user."},
	"staging-ours":        {Info, "A precopy of this user is there; it will be continued.", "Nothing."},
	"staging-left":        {Warn, "A staging directory lies beside the Maildir that no run has recorded. It is left alone.", "Remove it, when no mailferry is at work for the user."},
	"parked-left":         {Warn, "A mailbox that an earlier migration parked lies beside the live one. It is left alone.", "If nobody wants to go back to it, remove it."},
	"space":               {Refuse, "The filesystem has not enough bytes free for a second copy.", "Make room, or lower free-floor."},
	"inodes":              {Refuse, "The filesystem has not enough inodes free for a file per message.", "Make room, or use a filesystem with more inodes."},
	"quota":               {Refuse, "The user's quota does not allow a second copy.", "Raise his quota until the old mailboxes are retired."},

	// Locks and programs.
	"qpopper-temp":    {Refuse, "qpopper's copy of the spool holds mail: a POP3 session is at work, or broke off.", "Let the user log in by POP3 once more; if the session is gone, append the file to the spool."},
	"dotlock-live":    {Warn, "A program has locked the mailbox. The cutover will wait for it.", "Nothing, if it ends soon; to look at it, see the text."},
	"dotlock-stale":   {Warn, "A lock lies there whose program is gone. The cutover takes it over.", "Nothing, or remove it."},
	"dotlock-foreign": {Refuse, "A lock lies there that neither root nor the user has made.", "Look at it, then remove it."},
	"delivery-rule":   {Warn, "A rule of the user names an mbox: it would go on delivering there.", "Let the rule ask the semaphore, or deliver to the Maildir, after the move; see docs/findings.md."},
}
