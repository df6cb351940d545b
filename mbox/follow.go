package mbox

// follower counts messages by the careful reading beside a scan by another
// profile, and reports where the two disagree. While both take the same lines
// it has nothing to read.
type follower struct {
	splitter
	next  int64
	count int
	odd   *Oddities // the scan's
}

// followerWindow is small: it is used only where readings differ.
const followerWindow = 64 << 10

func newFollower(w *window, first int64, odd *Oddities) *follower {
	careful := Careful
	return &follower{
		splitter: splitter{w: w, p: &careful},
		next:     first,
		odd:      odd,
	}
}

// follow takes the message that the scan has found.
func (f *follower) follow(sp span) error {
	if sp.agreed && f.next == sp.from {
		f.next = sp.next
		f.count++
		return nil
	}
	for f.next < sp.next {
		f.next = f.split(f.next).next
		f.count++
		if f.w.err != nil {
			return f.w.err
		}
		if f.next < sp.next {
			f.odd.add(ProfileDiffers, f.next)
		}
	}
	if f.next > sp.next {
		f.odd.add(ProfileDiffers, sp.next)
	}
	return nil
}
