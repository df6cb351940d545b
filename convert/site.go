package convert

import (
	"mailferry/internal/account"
	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/mbox"
)

// Site is what all accounts of a host share.
type Site struct {
	Scan    mbox.Options
	Folders maildir.Folders
	Locks   mbox.LockOptions // which kinds; the rest is filled in for each mailbox
	State   string           // the state directory, root's
	MinUID  int              // users below are left alone
}

// asUser runs work with the identity of the account's user (safefs.AsUser).
func asUser(a account.Account, work func() error) error {
	return safefs.AsUser(safefs.Identity{UID: a.UID, GID: a.GID, Groups: a.Groups}, work)
}
