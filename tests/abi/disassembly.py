"""The functions in an object's disassembly, as lists of instructions.

    for function in disassembly.parse(output of objdump -dr --no-show-raw-insn):
        for instruction in function.instructions: ...

A compiler puts the rare part of a function into a section of its own, under the name "function.cold":
here it is one function with the rest, and jumps between the two are known.
"""

import re
from dataclasses import dataclass, field

NAMES = {}
for wide, parts in {"rax": "eax ax al ah", "rbx": "ebx bx bl bh", "rcx": "ecx cx cl ch",
                    "rdx": "edx dx dl dh", "rsi": "esi si sil", "rdi": "edi di dil",
                    "rbp": "ebp bp bpl", "rsp": "esp sp spl"}.items():
    NAMES.update({part: wide for part in parts.split()} | {wide: wide})
for number in range(8, 16):
    NAMES.update({f"r{number}{suffix}": f"r{number}" for suffix in ("", "d", "w", "b")})
NAMES.update({f"xmm{number}": f"xmm{number}" for number in range(16)})
SECTION_SHIFT = 32  # an address is that within its section, and above it the number of the section


@dataclass
class Instruction:
    address: int
    mnemonic: str
    operands: list
    text: str
    target: str = ""    # the symbol of a relocation, or of a direct call
    local: int = None   # the address of a jump within the object

    @property
    def section(self):
        return self.address >> SECTION_SHIFT


@dataclass
class Function:
    name: str
    instructions: list = field(default_factory=list)


def split_operands(text):
    parts, depth, part = [], 0, ""
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [part.strip() for part in parts + [part] if part.strip()]


def parse(disassembly):
    """The functions in the output of objdump -dr, of each object in turn."""
    objects = re.split(r"^.*:\s+file format .*$", disassembly, flags=re.MULTILINE)
    return [function for one in objects for function in with_cold_parts(parse_object(one))]


def parse_object(disassembly):
    functions, current, sections, base = [], None, {}, 0

    def start_of(section):
        return sections.setdefault(section, len(sections)) << SECTION_SHIFT

    for line in disassembly.splitlines():
        if match := re.match(r"Disassembly of section (\S+):", line):
            base = start_of(match[1])
        elif match := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            current = Function(match[1])
            functions.append(current)
        elif match := re.match(r"\s+[0-9a-f]+: (R_X86_64_\w+)\s+([^\s+-]+)(\+0x[0-9a-f]+|)", line):
            if current and current.instructions:
                one = current.instructions[-1]
                one.target, one.text = match[2], one.text + f" [{match[2]}]"
                one.local = None
                if match[2].startswith(".text"):  # counted from the end of the 4 bytes that it fills
                    one.local = start_of(match[2]) + int(match[3] or "0", 0) + 4
        elif current and (match := re.match(r"\s+([0-9a-f]+):\t(.*)$", line)):
            text = re.sub(r"\s+#.*", "", match[2]).strip()
            text = re.sub(r"^(?:(?:lock|rep|repz|repnz|notrack|bnd|data16|rex\.W|cs) )+", "", text)
            mnemonic, _, rest = text.partition(" ")
            instruction = Instruction(base + int(match[1], 16), mnemonic, split_operands(rest), text)
            if branch := re.match(r"([0-9a-f]+) <([^>+]+)(\+0x[0-9a-f]+)?>", rest.strip()):
                instruction.local = base + int(branch[1], 16)
                instruction.target = branch[2].removesuffix("@plt")
            current.instructions.append(instruction)
    return functions


def with_cold_parts(functions):
    """Joins the parts of each function, and gives the jumps and calls between sections their names."""
    whole, owner = {}, {}
    for function in sorted(functions, key=lambda one: ".cold" in one.name):
        name = re.sub(r"\.cold(\.\d+)?$", "", function.name)
        first = whole.setdefault(name, Function(name))
        first.instructions += function.instructions
        owner.update({one.address: name for one in function.instructions})
    for function in whole.values():
        for one in function.instructions:
            if one.local in owner:
                one.target = owner[one.local]
    return list(whole.values())


def is_call(instruction):
    return instruction.mnemonic.startswith("call")


def is_indirect(instruction):
    return bool(instruction.operands) and instruction.operands[0].startswith("*")


def registers_in(operand):
    """The registers that an operand names, by their 64-bit names."""
    return [NAMES[name] for name in re.findall(r"%(\w+)", operand) if name in NAMES]
