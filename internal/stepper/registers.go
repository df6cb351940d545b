//go:build linux && amd64

package stepper

import "golang.org/x/sys/unix"

// registers are those of a thread that is at a system call: number in orig_rax,
// arguments in rdi, rsi, rdx, r10, r8, r9, result in rax (syscall(2)).
type registers struct{ unix.PtraceRegs }

func (r *registers) get(tid int) error { return unix.PtraceGetRegs(tid, &r.PtraceRegs) }
func (r *registers) set(tid int) error { return unix.PtraceSetRegs(tid, &r.PtraceRegs) }

func (r *registers) number() uint64 { return r.Orig_rax }

func (r *registers) args() [6]*uint64 {
	return [6]*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9}
}

func (r *registers) arg(i int) uint64       { return *r.args()[i] }
func (r *registers) setArg(i int, v uint64) { *r.args()[i] = v }

// skip lets the call not be executed, and have that result.
func (r *registers) skip(result int64) {
	r.Orig_rax = ^uint64(0)
	r.Rax = uint64(result)
}
