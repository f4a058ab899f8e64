"""Finds thread-local addresses and values that a compiler keeps over a switch, in the disassembly.

    python3 tls_lint.py <libweft.a>...

A fiber that parks may go on as part of another kernel thread. What was computed from %fs before is then
another thread's, and compilers do keep such things: to them a thread-local address is a constant of the
function. So each function is followed instruction by instruction. What comes from

    mov %fs:0, the address of a thread-local, __tls_get_addr     an address; what is loaded there, a value
    current_worker(), weft_worker by hand                         a value; what is loaded there, neither
    __errno_location()                                            an address; errno itself may be kept

is marked, wherever it is moved: registers and slots of the stack frame. A call that can reach weft_leave
makes every mark stale, and a use of what is stale is a finding.

A function is followed into its cold part, which compilers put into a section of its own (.text.unlikely).

What can reach weft_leave is taken from the call graph of all the objects together. Calls through
pointers are not followed by the graph: those that run code of users, who park, are listed below; the
others run on a worker's own stack, which never leaves its kernel thread.
"""

import re
import subprocess
import sys

sys.dont_write_bytecode = True  # the source folder stays as it is
from disassembly import NAMES, is_call, is_indirect, parse, registers_in

LEAVE = "weft_leave"
# Functions whose calls through pointers run code that may park, and what code that is.
CALLS_USERS = {
    r"run_closure|fiber_main": "the closure of a fiber",
    r"seal|drop_handle|refuse_fiber|free_fiber": "destructors of closures and results",
    r"run_body|serve|Server|handle": "the body of run(), the handler of serve()",
}
# Findings that are right as they are: function, what is marked, and why.
ALLOWED = {}

ADDRESS, VALUE, ERRNO = "a thread-local address", "a thread-local value", "the address of errno"
SOURCES = {
    "__tls_get_addr": ADDRESS,
    "__cxa_get_globals": ADDRESS,
    "pthread_self": VALUE,
    "__errno_location": ERRNO,
    "_ZN4weft5sched14current_workerEv": VALUE,
}
LOADED_FROM = {ADDRESS: VALUE, VALUE: None, ERRNO: None}

CALLEE_SAVED = {"rbx", "rbp", "r12", "r13", "r14", "r15"}
READS_DESTINATION = re.compile(r"(add|sub|and|or|xor|adc|sbb|inc|dec|neg|not|sh[lr]|sar|cmp|test|xadd|"
                               r"xchg|cmpxchg|imul|bt|p?unpck|movh|pinsr)")
PADDING = re.compile(r"(nop|xchg +%ax,%ax)")
NEVER_RETURN = {"_Unwind_Resume", "__cxa_rethrow", "__cxa_throw", "_ZSt9terminatev", "abort",
                "__stack_chk_fail", "_ZSt17rethrow_exceptionNSt15__exception_ptr13exception_ptrE",
                "_ZN4weft4base12check_failedEPKciS2_S2_"}
NO_FALL_THROUGH = re.compile(r"(jmp|ret|ud2|hlt)")


# ---- What can reach weft_leave

def calls_users(name):
    return any(re.search(pattern, name) for pattern in CALLS_USERS)


def switching_functions(functions):
    callers = {}
    reached = {LEAVE}
    for function in functions:
        for instruction in function.instructions:
            if not (is_call(instruction) or instruction.mnemonic.startswith("j")):
                continue
            if is_indirect(instruction) and not instruction.target:
                if is_call(instruction) and calls_users(function.name):
                    reached.add(function.name)
            elif instruction.target != function.name:
                callers.setdefault(instruction.target, set()).add(function.name)
    todo = list(reached)
    while todo:
        for caller in callers.get(todo.pop(), ()):
            if caller not in reached:
                reached.add(caller)
                todo.append(caller)
    return reached


# ---- Following one function

class State:
    """What the places hold, registers by name and stack slots by offset, and where rsp and rbp point.

    {place: ((kind, address of the instruction that it comes from), stale)}
    """

    def __init__(self, marks=None, rsp=0, rbp=None):
        self.marks, self.rsp, self.rbp = dict(marks or {}), rsp, rbp

    def copy(self):
        return State(self.marks, self.rsp, self.rbp)

    def without_scratch_registers(self):
        return State({place: mark for place, mark in self.marks.items()
                      if not isinstance(place, str) or place in CALLEE_SAVED}, self.rsp, self.rbp)

    def join(self, other):
        """Takes in what `other` has; returns whether that was anything new."""
        changed = False
        for place, (kind, stale) in other.marks.items():
            known = self.marks.get(place)
            wanted = (kind, stale or (known is not None and known[1]))
            if known != wanted and (known is None or wanted[1] != known[1]):
                self.marks[place] = wanted
                changed = True
        return changed

    def place(self, operand):
        """The register or stack slot that an operand names; None for other memory and constants."""
        if operand.startswith("%"):
            return NAMES.get(operand[1:])
        if match := re.fullmatch(r"(-?0x[0-9a-f]+|)\(%(rsp|rbp)\)", operand):
            base = self.rsp if match[2] == "rsp" else self.rbp
            if base is not None:
                return base + (int(match[1], 16) if match[1] else 0)
        return None


class Follower:
    def __init__(self, function, switching):
        self.function, self.switching = function, switching
        self.by_address = {one.address: i for i, one in enumerate(function.instructions)}
        self.findings = {}

    def run(self):
        code = self.function.instructions
        if not code:
            return self.findings
        entered = {0: State()}
        todo = [0]
        after_calls = State()
        targets = {self.by_address.get(one.local) for one in code if one.local is not None}
        # Where an exception lands: behind a jump or return, and no jump leads there or to a nop before it.
        pads = [i for i in range(1, len(code))
                if not PADDING.match(code[i].text) and self.ends_before(i)
                and not targets.intersection(range(self.padding_before(i), i + 1))]
        while todo:
            at = todo.pop()
            state = entered[at].copy()
            while at < len(code):
                one = code[at]
                self.step(one, state)
                if is_call(one) and after_calls.join(state.without_scratch_registers()):
                    for pad in pads:
                        self.enter(entered, todo, pad, State(after_calls.marks, state.rsp, state.rbp))
                if one.mnemonic.startswith("j") and one.local in self.by_address:
                    self.enter(entered, todo, self.by_address[one.local], state)
                if NO_FALL_THROUGH.match(one.mnemonic) or one.target in NEVER_RETURN:
                    break
                at += 1
                if at < len(code) and code[at].section != one.section:
                    break
                if at in entered or at in targets:
                    if at < len(code):
                        self.enter(entered, todo, at, state)
                    break
        return self.findings

    def padding_before(self, i):
        """Where the padding directly before instruction `i` begins; `i` itself without any."""
        while i > 0 and PADDING.match(self.function.instructions[i - 1].text):
            i -= 1
        return i

    def ends_before(self, i):
        """Whether the instruction before `i`, padding aside, goes on elsewhere."""
        i = self.padding_before(i)
        if i == 0:
            return False
        one, after = self.function.instructions[i - 1:i + 1]
        if one.target in NEVER_RETURN and after.mnemonic == "jmp":
            return False  # clang does not take the call's word for it: a dead jump, no landing pad
        return bool(one.section != after.section
                    or NO_FALL_THROUGH.match(one.mnemonic) or one.target in NEVER_RETURN)

    @staticmethod
    def enter(entered, todo, at, state):
        if at not in entered:
            entered[at] = state.copy()
            todo.append(at)
        elif entered[at].join(state):
            todo.append(at)

    def read(self, one, state, place):
        kind, stale = state.marks.get(place, (None, False))
        if stale and one.address not in self.findings:
            what, origin = kind
            self.findings[one.address] = f"{one.text}   uses {what} from before a switch, of {origin:#x}"
        return kind

    def step(self, one, state):
        if is_call(one):
            return self.call(one, state)
        if one.mnemonic.startswith("push"):
            kind = self.value_of(one, state, one.operands[0])
            state.rsp -= 8
            return self.write(state, state.rsp, kind)
        if one.mnemonic.startswith("pop"):
            # An epilogue restores what the caller had: no use.
            kind = state.marks.get(state.rsp)
            state.rsp += 8
            state.marks.pop(NAMES.get(one.operands[0][1:]), None)
            if kind and not kind[1]:
                state.marks[NAMES[one.operands[0][1:]]] = kind
            return None
        if one.mnemonic == "leave":
            state.rsp = (state.rbp or 0) + 8
            return None
        if not one.operands or one.mnemonic.startswith(("j", "nop", "endbr")):
            for operand in one.operands:
                for register in registers_in(operand):
                    self.read(one, state, register)
            return None
        return self.move(one, state)

    def call(self, one, state):
        name = one.target
        for operand in one.operands:
            for register in registers_in(operand):
                self.read(one, state, register)
        switches = name in self.switching or (
            is_indirect(one) and not name and calls_users(self.function.name))
        for place in list(state.marks):
            kind, stale = state.marks[place]
            if isinstance(place, str) and place not in CALLEE_SAVED:
                del state.marks[place]
            elif switches:
                state.marks[place] = (kind, True)
        if name in SOURCES:
            state.marks["rax"] = ((SOURCES[name], one.address), False)

    def value_of(self, one, state, operand):
        """Reads an operand; returns the kind of what it holds."""
        kinds = [self.read(one, state, register) for register in registers_in(operand)]
        if one.mnemonic.startswith("lea"):
            return next((kind for kind in kinds if kind), None)
        place = state.place(operand)
        if place is not None:
            return self.read(one, state, place)
        if "%fs:" in operand:
            if operand == "%fs:0x28":
                return None  # the canary: one for all threads
            return ADDRESS if operand in ("%fs:0x0", "%fs:0") else VALUE, one.address
        loaded = [LOADED_FROM[kind[0]] for kind in kinds if kind]
        return (loaded[0], one.address) if loaded and loaded[0] else None

    @staticmethod
    def write(state, place, kind):
        if place is None:
            return
        if kind:
            state.marks[place] = (kind, False)
        else:
            state.marks.pop(place, None)

    def move(self, one, state):
        *sources, destination = one.operands
        if one.mnemonic.startswith("xor") and len(sources) == 1 and sources[0] == destination:
            return self.write(state, state.place(destination), None)
        kinds = [self.value_of(one, state, source) for source in sources]
        kind = next((kind for kind in kinds if kind), None)
        place = state.place(destination)
        if place is None:
            for register in registers_in(destination):
                self.read(one, state, register)
            return None
        if READS_DESTINATION.match(one.mnemonic):
            kind = self.read(one, state, place) or kind
            if re.match(r"(cmp|test|bt)", one.mnemonic):
                return None
        if place == "rsp":
            return self.move_stack_pointer(one, sources, state)
        if place == "rbp" and sources and sources[0] == "%rsp":
            state.rbp = state.rsp
            return self.write(state, "rbp", None)
        if isinstance(place, int) and any(re.match(r"%[xyz]mm", source) for source in sources):
            self.write(state, place + 8, kind)  # two words at once
        return self.write(state, place, kind)

    @staticmethod
    def move_stack_pointer(one, sources, state):
        if match := re.fullmatch(r"\$(-?0x[0-9a-f]+)", sources[0] if sources else ""):
            amount = int(match[1], 16)
            amount -= 1 << 64 if amount >= 1 << 63 else 0
            state.rsp += amount if one.mnemonic.startswith("add") else \
                -amount if one.mnemonic.startswith("sub") else 0
        elif match := re.fullmatch(r"(-?0x[0-9a-f]+)\(%(rsp|rbp)\)", sources[0] if sources else ""):
            base = state.rsp if match[2] == "rsp" else state.rbp
            if base is not None:
                state.rsp = base + int(match[1], 16)
        elif sources and sources[0] == "%rbp" and state.rbp is not None:
            state.rsp = state.rbp


# ---- The whole

def lint(paths):
    """All findings in the objects, as {(function, address): text}, and the names that can switch."""
    functions = []
    for path in paths:
        output = subprocess.run(["objdump", "-dr", "--no-show-raw-insn", path], check=True,
                                capture_output=True, text=True)
        functions += parse(output.stdout)
    switching = switching_functions(functions)
    findings = {}
    for function in functions:
        if function.name == LEAVE:
            continue
        for address, text in Follower(function, switching).run().items():
            if not any(re.search(pattern, function.name) for pattern in ALLOWED):
                findings[function.name, address] = text
    return findings, switching


def main():
    findings, switching = lint(sys.argv[1:])
    for (name, address), text in sorted(findings.items()):
        print(f"{name}+{address:#x}: {text}")
    print(f"{len(switching)} functions can reach {LEAVE}, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
