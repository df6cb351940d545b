package convert

import (
	"fmt"
	"os"
	"strings"

	"mailferry/internal/openfiles"
	"mailferry/mbox"
)

// agent tells who writes to a stray: who has it open, or has left his pid in
// the dotlock. Most agents are gone by the time that anybody looks.
func (w *sweep) agent(st *stray) string {
	var names []string
	id := openfiles.ID{Dev: st.src.id.dev, Ino: st.src.id.ino}
	holders, _ := openfiles.Holders(id) // who can't be seen is unknown
	for _, h := range holders[id] {
		if h.Write {
			names = append(names, fmt.Sprintf("%q, pid %d, uid %d", h.Command, h.PID, h.UID))
		}
	}
	if len(names) > 0 {
		return strings.Join(names, "; ")
	}
	if st.holder.PID != 0 {
		return dotlockMaker(st.holder)
	}
	return "unknown"
}

// dotlockMaker names the maker of a dotlock, with his program if he is alive.
func dotlockMaker(h mbox.LockHolder) string {
	if h.Host != "" && h.Host != hostname() {
		return h.String()
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", h.PID))
	if err != nil {
		return h.String()
	}
	return fmt.Sprintf("%q, %s", strings.TrimSuffix(string(comm), "\n"), h)
}
