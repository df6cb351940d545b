package doctor

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How long mailferry-deliver waits if it is not told (docs/routing/postfix.md),
// and what it has for the message itself then.
const (
	agentWait     = 5 * time.Second
	agentLockWait = 15 * time.Second
	agentWork     = time.Minute
)

// agentTime is how long our agent may take when it is called so.
func (c command) agentTime() time.Duration {
	of := func(name string, d time.Duration) time.Duration {
		text, _ := c.option(name)
		if told, err := time.ParseDuration(text); err == nil {
			return told
		}
		return d
	}
	return of("--wait", agentWait) + 2*of("--lock-wait", agentLockWait) + agentWork
}

// pipeTime is timeLimit for a service of pipe(8).
func (p *postfix) pipeTime(place, service string, c command) {
	name := service + "_time_limit"
	if told, err := p.ask(postconfPaths, "-x", name); err == nil {
		maps.Copy(p.values, parsePostconf(told))
	}
	if p.values[name] == "" {
		name = "command_time_limit"
	}
	p.timeLimit(place, name, c)
}

// timeLimit compares a limit, behind which Postfix bounces, with what our agent
// may take.
func (p *postfix) timeLimit(place, name string, c command) {
	if need := c.agentTime(); c.agent() == ours && postfixSeconds(p.values[name]) < int64(need.Seconds()) {
		p.find(postfixName, Do, "time-limit", "Set "+name+" = 1000s, which is the default.",
			"%s: a delivery may take %s, for which %s waits for a hold and locks, and then it bounces", p.setting(name), need, place)
	}
}

// postfixSeconds is a time as Postfix has it, "1000s"; 0 if it is none.
func postfixSeconds(text string) int64 {
	units := map[string]int64{"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
	number := strings.TrimRight(text, "smhdw")
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return 0
	}
	return int64(n) * units[text[len(number):]]
}

// limit is one of those that processes are started with.
type limit struct {
	name  string
	least uint64 // that is surely enough for the runtime of Go to start
	unit  string
}

// On a host with 2 processors, 0.7 GiB of addresses, 64 MiB of data or 6 threads
// are too little; pids.max is that of all deliveries, of which local(8) makes
// up to 100 at once.
var (
	processLimits = []limit{{"Max address space", 2 << 30, "bytes"}, {"Max data size", 256 << 20, "bytes"}, {"Max processes", 100, "processes"}}
	pidsLimit     = limit{"pids.max", 1000, "processes and threads"}
)

// below reports whether a value is too small; what is no number has no limit.
func (l limit) below(value string) bool {
	n, err := strconv.ParseUint(value, 10, 64)
	return err == nil && n < l.least
}

// limits looks at those of Postfix' master, if it runs: the agent has them, too.
func (p *postfix) limits() {
	if !slices.Contains(p.agents, ours) {
		return
	}
	pid := p.masterPID()
	if pid == "" {
		return
	}
	text := p.readLimits("/proc/" + pid + "/limits")
	for _, l := range processLimits {
		for line := range strings.Lines(text) {
			rest, ok := strings.CutPrefix(line, l.name)
			if soft := strings.Fields(rest); ok && len(soft) > 0 {
				p.judge(l, pid, soft[0])
			}
		}
	}
	for _, file := range pidsFiles(p.readLimits("/proc/" + pid + "/cgroup")) {
		p.judge(pidsLimit, pid+", "+file, strings.TrimSpace(p.readLimits(file)))
	}
}

func (p *postfix) judge(l limit, process, value string) {
	if l.below(value) {
		p.find(postfixName, Do, "limits", "Raise it for Postfix, as by LimitAS=, LimitDATA=, LimitNPROC= or TasksMax= of its unit, and start Postfix anew.",
			"%s of process %s is %s, and should be %d %s: mailferry-deliver may be unable to start, and its mail bounces", l.name, process, value, l.least, l.unit)
	}
}

// masterPID is the process of master(8); "" if it does not run.
func (p *postfix) masterPID() string {
	pid := strings.TrimSpace(p.readLimits(p.values["queue_directory"] + "/pid/master.pid"))
	if _, err := strconv.ParseUint(pid, 10, 31); err != nil {
		return ""
	}
	if p.readLimits("/proc/"+pid+"/comm") != "master\n" {
		return "" // it did
	}
	return pid
}

func (p *postfix) readLimits(name string) string {
	text, err := p.system.read(name)
	if err != nil {
		p.find(postfixName, Unknown, "not-told", "", "the limits of its processes could not be read: %s", reason(err))
	}
	return text
}

// pidsFiles are the files that may limit the number of processes in a cgroup,
// of what /proc/PID/cgroup says (cgroups(7)).
func pidsFiles(text string) (files []string) {
	for line := range strings.Lines(text) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 || !strings.HasPrefix(part[2], "/") {
			continue
		}
		root := "/sys/fs/cgroup"
		switch {
		case slices.Contains(strings.Split(part[1], ","), "pids"):
			root += "/pids"
		case part[0] != "0":
			continue
		}
		for dir := path.Clean(part[2]); ; dir = path.Dir(dir) {
			files = append(files, path.Join(root, dir, "pids.max"))
			if dir == "/" {
				break
			}
		}
	}
	return files
}
