package lmtp

import (
	"errors"
	"fmt"
	"strings"

	"mailferry/internal/account"
	"mailferry/internal/deliver"
)

// find tells whose address it is. As with Postfix local(8), the first name that
// is somebody's counts: the local part in small letters, then as it is written,
// then without what stands behind the first delimiter, the extension.
func (s *session) find(address string) (user, extension string, err error) {
	local := address
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local = address[:at]
	}
	err = fmt.Errorf("user %q: %w", local, deliver.ErrNoUser)
	base := local
	if at := strings.IndexAny(local, s.Delimiters); at >= 0 {
		base, extension = local[:at], local[at+1:]
	}
	for _, try := range []struct{ user, extension string }{
		{strings.ToLower(local), ""}, {local, ""}, {strings.ToLower(base), extension}, {base, extension},
	} {
		if wrong := account.CheckName(try.user); wrong != nil {
			err = wrong
			continue
		}
		failed := s.knows(try.user)
		switch {
		case failed == nil:
			return try.user, try.extension, nil
		case errors.Is(failed, deliver.ErrUnproved):
			err = failed // who is not found under the next name either is no proven absent
		case !errors.Is(failed, deliver.ErrNoUser):
			return "", "", failed
		}
	}
	if errors.Is(err, deliver.ErrNoUser) {
		err = s.perhaps(local, err)
	}
	return "", "", err
}

func (s *session) knows(user string) error {
	_, err := s.Agent.Users.Find(s.ctx, user)
	return err
}

// perhaps is absent, or tells of a user whose address it is if this host has
// other delimiters than the server was told: there the mail would not bounce.
func (s *session) perhaps(local string, absent error) error {
	for at, c := range []byte(local) {
		if !isPunctuation(c) || strings.IndexByte(local, c) < at {
			continue // an extension begins at the first delimiter
		}
		for _, name := range []string{strings.ToLower(local[:at]), local[:at]} {
			if account.CheckName(name) != nil {
				continue
			}
			if err := s.knows(name); err == nil {
				return fmt.Errorf("user %q: perhaps an extension of %q, but --recipient-delimiter is %q", local, name, s.Delimiters)
			} else if !errors.Is(err, deliver.ErrNoUser) {
				return err
			}
		}
	}
	return absent
}

func isPunctuation(c byte) bool {
	return '!' <= c && c <= '/' || ':' <= c && c <= '@' || '[' <= c && c <= '`' || '{' <= c && c <= '~'
}
