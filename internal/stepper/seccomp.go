//go:build linux && amd64

package stepper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// filter is a program for seccomp(2) that stops at the calls that may count, and
// at no other.
func filter() []unix.SockFilter {
	numbers := slices.Sorted(maps.Keys(mutating))
	code := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	for i, n := range numbers {
		code = append(code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(n), Jt: uint8(len(numbers) - i)})
	}
	return append(code,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_TRACE})
}

// install lets the program, which has not begun, call seccomp(2): the
// instruction is put where it begins, and what was there is put back. The
// filter goes to its stack, below all that is in use.
func (t *tracer) install(code []unix.SockFilter) error {
	var before registers
	if err := before.get(t.pid); err != nil {
		return err
	}
	at := (before.Rsp - 8192) &^ 15
	var memory bytes.Buffer // struct sock_fprog, and behind it what it points to
	err := errors.Join(
		binary.Write(&memory, binary.LittleEndian, []uint64{uint64(len(code)), at + 16}),
		binary.Write(&memory, binary.LittleEndian, code))
	if err != nil {
		return err
	}
	if _, err := unix.PtracePokeData(t.pid, uintptr(at), memory.Bytes()); err != nil {
		return err
	}
	instructions := make([]byte, 8)
	if _, err := unix.PtracePeekText(t.pid, uintptr(before.Rip), instructions); err != nil {
		return err
	}
	if _, err := unix.PtracePokeText(t.pid, uintptr(before.Rip), []byte{0x0f, 0x05}); err != nil { // syscall
		return err
	}
	result, err := t.single(before, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, at)
	if err == nil && result != 0 {
		err = unix.Errno(-result)
	}
	_, text := unix.PtracePokeText(t.pid, uintptr(before.Rip), instructions)
	return errors.Join(err, text, before.set(t.pid))
}

// single executes the one instruction at which the program is, a system call.
func (t *tracer) single(r registers, number uint64, args ...uint64) (result int64, err error) {
	r.Rax, r.Orig_rax = number, ^uint64(0) // not in a call that could be begun again
	for i, a := range args {
		r.setArg(i, a)
	}
	if err := r.set(t.pid); err != nil {
		return 0, err
	}
	if err := unix.PtraceSingleStep(t.pid); err != nil {
		return 0, err
	}
	if err := t.trap(); err != nil {
		return 0, fmt.Errorf("single step: %w", err)
	}
	if err := r.get(t.pid); err != nil {
		return 0, err
	}
	return int64(r.Rax), nil
}
