# Steps a program through its switches and unwinds at every single instruction.
#
#   gdb -batch -x step_switch.gdb.py switch_steps
#
# From the first instruction of weft_loop until it returns, every backtrace must end in main (the worker's
# side) or in weft_entry (a fiber's), and must not be given up half-way: gdb then says "Backtrace stopped"
# for people, and tells a script by the reason of the last frame. At the end every instruction of the
# switch must have been seen, or the walk proves less than it says. Prints "steps N" when all is well.
import gdb

FUNCTIONS = ["weft_loop", "weft_leave", "weft_entry"]
STEPS_MAX = 20000


def instructions(function):
    """Address and text of each instruction of `function`, which the symbol's size bounds."""
    lines = gdb.execute(f"disassemble {function}", to_string=True).splitlines()
    found = {}
    for line in lines:
        words = line.replace("=>", "  ").split()
        if words and words[0].startswith("0x"):
            found[int(words[0], 16)] = " ".join(words[2:])
    return found


def unwind():
    """The outermost frame's name, and why the unwinder went no further."""
    frame = gdb.newest_frame()
    while frame.older() is not None:
        frame = frame.older()
    return frame.name(), frame.unwind_stop_reason()


def judge(name, reason):
    if name == "main" and reason == gdb.FRAME_UNWIND_NO_REASON:
        return True  # gdb shows nothing outside of main
    return name == "weft_entry" and reason in (gdb.FRAME_UNWIND_OUTERMOST, gdb.FRAME_UNWIND_NO_REASON)


def follow():
    expected = {}
    for function in FUNCTIONS:
        expected.update(instructions(function))
    seen = set()
    failures = 0
    for step in range(STEPS_MAX):
        address = gdb.newest_frame().pc()
        seen.add(address)
        name, reason = unwind()
        if not judge(name, reason):
            failures += 1
            print(f"FAILED: at {address:#x} {expected.get(address, '')}: the backtrace ends in {name}: "
                  f"{gdb.frame_stop_reason_string(reason)}")
        if step > 0 and gdb.newest_frame().name() == "main":
            break
        gdb.execute("stepi", to_string=True)
    for address in sorted(set(expected) - seen):
        failures += 1
        print(f"FAILED: {address:#x} {expected[address]} was never reached")
    print("steps" if failures == 0 else "FAILED after", step)


gdb.execute("set confirm off")
gdb.execute("set pagination off")
gdb.execute("set debuginfod enabled off")
gdb.execute("break *weft_loop")
gdb.execute("run")
follow()
gdb.execute("kill")
