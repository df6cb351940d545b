package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// contender is one way to arrive at the Maildir dst on the image.
type contender struct {
	name   string
	rounds int
	// setup makes ready what is not measured.
	setup func(dst string) error
	// steps are the commands, one after the other, all measured.
	steps func(dst string) [][]string
	env   []string
	// reports: the last step measures itself and says so on stdout (bareReport).
	reports bool
}

const ours = "mailferry convert"

func (b *bench) contenders() []contender {
	all := []contender{
		{
			name: "tar -xf, sync -f", rounds: b.rounds,
			setup: func(dst string) error { return b.mkdir(dst) },
			steps: func(dst string) [][]string {
				return [][]string{{"tar", "--warning=no-timestamp", "-C", dst, "-xf", b.tar}, {"sync", "-f", dst}}
			},
		},
		{
			name: "bare loop, syncfs", rounds: b.rounds, reports: true,
			steps: func(dst string) [][]string { return [][]string{{b.self, bareArgument, b.list, dst}} },
		},
	}
	if b.mailferry != "" {
		all = append([]contender{{
			name: ours, rounds: b.rounds,
			steps: func(dst string) [][]string { return [][]string{{b.mailferry, "convert", b.mbox, dst}} },
		}}, all...)
	}
	if b.peers {
		all = append(all, b.mb2md(), b.doveadm())
	}
	return all
}

func (b *bench) mb2md() contender {
	return contender{
		name: "mb2md, sync -f", rounds: b.peerRounds,
		steps: func(dst string) [][]string {
			return [][]string{{"mb2md", "-s", b.mbox, "-d", dst}, {"sync", "-f", filepath.Dir(dst)}}
		},
	}
}

// doveadm works on a copy, because Dovecot rewrites every mbox that it opens.
func (b *bench) doveadm() contender {
	home := filepath.Join(b.scratch, "dovecot")
	conf := filepath.Join(home, "dovecot.conf")
	return contender{
		name: "doveadm backup, sync -f", rounds: b.peerRounds,
		env: []string{"HOME=" + home, "USER=bench"},
		setup: func(string) error {
			if err := os.RemoveAll(home); err != nil {
				return err
			}
			if err := b.mkdir(home); err != nil {
				return err
			}
			inbox := filepath.Join(home, "INBOX")
			if err := copyFile(inbox, b.mbox, 0o600); err != nil {
				return err
			}
			if err := os.Chown(inbox, b.uid, b.uid); err != nil {
				return err
			}
			return os.WriteFile(conf, fmt.Appendf(nil, dovecotConf, home), 0o644)
		},
		steps: func(dst string) [][]string {
			return [][]string{{"doveadm", "-c", conf, "backup", "maildir:" + dst}, {"sync", "-f", filepath.Dir(dst)}}
		},
	}
}

// dovecotConf: the source has its index beside it, without which dsync knows no
// GUIDs and copies nothing; the separator is the same on both sides.
const dovecotConf = `mail_location = mbox:%[1]s/mail:INBOX=%[1]s/INBOX
mail_home = %[1]s
base_dir = %[1]s/run
log_path = /dev/stderr
stats_writer_socket_path =
ssl = no
namespace inbox {
  inbox = yes
  separator = /
}
`

func (b *bench) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return os.Chown(path, b.uid, b.uid)
}
