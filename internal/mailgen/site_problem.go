package mailgen

// problem is one way in which a user's mail can be amiss.
type problem struct {
	code     string
	what     string
	severity string
	pair     bool            // takes two users
	bare     bool            // no files are made before spoil
	arrange  func(*resident) // before the files are made
	spoil    func(*resident) // after
}

// Problem is a kind of problem that Site can make.
type Problem struct {
	Code     string // of the finding
	Case     string // what exactly is the matter
	Severity string // Info, Warn or Refuse
}

// Problems lists all that Site can make.
func Problems() []Problem {
	list := make([]Problem, len(problems))
	for i, p := range problems {
		list[i] = Problem{p.code, p.what, p.severity}
	}
	return list
}

var problems = []problem{
	{code: "no-user", what: "the users file lacks the name", severity: Refuse, bare: true, arrange: forget},
	{code: "system-user", what: "the uid is below 1000", severity: Refuse, arrange: lowUID},
	{code: "shared-uid", what: "two names have one uid", severity: Refuse, pair: true, arrange: shareUID},
	{code: "collision", what: "two names have one home", severity: Refuse, pair: true, bare: true, arrange: shareHome, spoil: settleInbox},
	{code: "no-mail", what: "neither spool nor folders", severity: Info, spoil: noMail},

	{code: "mbox-symlink", what: "INBOX is a symlink to a file of the user's", severity: Refuse, spoil: spoolSymlink},
	{code: "mbox-symlink", what: "a folder is a symlink to a file of the user's", severity: Refuse, spoil: folderSymlink},
	{code: "mbox-hardlink", what: "INBOX has a second name", severity: Refuse, spoil: spoolHardlink},
	{code: "mbox-hardlink", what: "a folder has a second name", severity: Refuse, spoil: folderHardlink},
	{code: "mbox-irregular", what: "INBOX is a FIFO", severity: Refuse, spoil: spoolFIFO},
	{code: "mbox-irregular", what: "INBOX is a directory", severity: Refuse, spoil: spoolDirectory},
	{code: "mbox-irregular", what: "INBOX is a socket", severity: Refuse, spoil: spoolSocket},
	{code: "mbox-irregular", what: "a folder is a FIFO", severity: Refuse, spoil: folderFIFO},
	{code: "mbox-owner", what: "INBOX is root's", severity: Refuse, spoil: spoolOwner},
	{code: "mbox-owner", what: "a folder is a stranger's", severity: Refuse, spoil: folderOwner},
	{code: "mbox-unreadable", what: "INBOX has mode 0", severity: Refuse, spoil: spoolMode(0)},
	{code: "mbox-unreadable", what: "a folder has mode 0", severity: Refuse, spoil: folderMode(0)},
	{code: "mbox-mode", what: "others may read INBOX", severity: Warn, spoil: spoolMode(0o644)},
	{code: "mbox-mode", what: "others may write a folder", severity: Warn, spoil: folderMode(0o666)},

	{code: "inbox-format", what: "INBOX begins with prose", severity: Refuse, spoil: inboxFormat},

	{code: "folders-untrusted", what: "the folder tree is a symlink", severity: Refuse, spoil: foldersSymlink},
	{code: "folders-unreadable", what: "the folder tree is a file", severity: Refuse, spoil: foldersFile},
	{code: "maildir-inside", what: "a Maildir among the folders", severity: Warn, spoil: maildirInside},

	{code: "home-missing", what: "the home does not exist", severity: Refuse, spoil: homeMissing},
	{code: "home-owner", what: "the home is a stranger's", severity: Refuse, spoil: homeOwner},
	{code: "home-writable", what: "everybody may write to the home", severity: Refuse, spoil: homeWritable},
	{code: "home-untrusted", what: "the directory above the home is a stranger's", severity: Refuse, arrange: homeUntrusted},

	{code: "maildir-foreign", what: "a Maildir with a message is there", severity: Refuse, spoil: maildirForeign},
	{code: "maildir-irregular", what: "the Maildir is a symlink", severity: Refuse, spoil: maildirSymlink},
	{code: "maildir-irregular", what: "the Maildir is a file", severity: Refuse, spoil: maildirFile},
	{code: "maildir-unreachable", what: "the user may not write to his home", severity: Refuse, spoil: homeReadOnly},
	{code: "maildir-empty", what: "an empty directory is in the Maildir's place", severity: Info, spoil: maildirEmpty},

	{code: "staging-left", what: "a staging directory that no record knows", severity: Warn, spoil: stagingLeft},
	{code: "parked-left", what: "an older parked mbox lies beside INBOX", severity: Warn, spoil: parkedLeft},
	{code: "qpopper-temp", what: "qpopper's temporary mailbox holds mail", severity: Refuse, spoil: qpopperTemp},
	{code: "dotlock-stale", what: "a dotlock whose maker is dead", severity: Warn, spoil: dotlockStale},
	{code: "dotlock-foreign", what: "a dotlock of a stranger", severity: Refuse, spoil: dotlockForeign},

	{code: "reading-differs", what: "a From_ line that Dovecot does not accept", severity: Warn, spoil: readingDiffers},
	{code: "not-mailbox", what: "a file of notes among the folders", severity: Warn, spoil: notMailbox},
	{code: "folder-name", what: "a folder has a dot in its name", severity: Refuse, spoil: folderName},
	{code: "folder-double", what: "one folder in two spellings", severity: Refuse, spoil: folderDouble},
	{code: "delivery-rule", what: ".procmailrc names an mbox", severity: Warn, spoil: procmailRule},
	{code: "delivery-rule", what: ".forward names an mbox", severity: Warn, spoil: forwardRule},
	{code: "delivery-rule", what: ".mailfilter names an mbox", severity: Warn, spoil: mailfilterRule},
}
