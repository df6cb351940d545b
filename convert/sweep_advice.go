package convert

// advice is what to do about a difference that a sweep has named and not touched, in a
// clause behind its reason; "" where the reason says it itself.
func advice(code, user string) string {
	const again = ", then run mailferry sweep"
	switch code {
	case "mbox-owner":
		return "; left there: see what wrote it, make it " + shellWord(user) + "'s with chown or move it away" + again
	case "mbox-hardlink":
		return "; left there: see what links it, and remove the other name or move it away" + again
	case "stray-irregular":
		return "; left there: see what made it, and move it away" + again
	case "stray-format":
		return "; left there: see what wrote it, and move that elsewhere" + again
	case "stray-doubt":
		return "; left there: see what of it is missing in the Maildir, deliver that by hand, and move it away"
	case "parked-gone":
		return "; put it back if it was moved away, else a rollback has the Maildir alone"
	case "parked-replaced", "parked-shrunk":
		return "; left there: see what did that, and move it away; a rollback has the Maildir alone then"
	case "parked-unrecorded":
		return "; left there: see whether mail came to its end"
	case "sweep-directory":
		return "; nothing in it is looked at: see who made it so, and put it right" + again
	}
	return ""
}
