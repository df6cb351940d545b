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
// then without what stands behind a plus, the extension.
func (s *session) find(address string) (user, extension string, err error) {
	local := address
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local = address[:at]
	}
	err = fmt.Errorf("user %q: %w", local, deliver.ErrNoUser)
	base, extension, _ := strings.Cut(local, "+")
	for _, try := range []struct{ user, extension string }{
		{strings.ToLower(local), ""}, {local, ""}, {strings.ToLower(base), extension}, {base, extension},
	} {
		if wrong := account.CheckName(try.user); wrong != nil {
			err = wrong
			continue
		}
		_, failed := s.Agent.Users.Find(s.ctx, try.user)
		switch {
		case failed == nil:
			return try.user, try.extension, nil
		case errors.Is(failed, deliver.ErrUnproved):
			err = failed // who is not found under the next name either is no proven absent
		case !errors.Is(failed, deliver.ErrNoUser):
			return "", "", failed
		}
	}
	return "", "", err
}
