"""The atomic accesses of runtime/, read from its sources.

    for access in orders.read(root): print(access.key, access.orders)
    for place in orders.strays(root): print(place)          # an order that is written outside of any access

An access is told by its file, the function it is in, what is done to which object, and, where a function does
the same more than once, a number. Planted bugs are left out: where one is planted, what counts is what ships.
"""

import re
from dataclasses import dataclass
from pathlib import Path

OPERATIONS = ("load", "store", "exchange", "fetch_add", "fetch_sub", "fetch_or", "fetch_and", "fetch_xor",
              "compare_exchange_weak", "compare_exchange_strong")
ORDER = re.compile(r"std::memory_order_(\w+)|__ATOMIC_(\w+)")
ACCESS = re.compile(r"(?:(?P<object>[A-Za-z_]\w*)(?:\[(?:[^\[\]]|\[[^\]]*\])*\]|\(\))?\s*(?:\.|->)\s*)?"
                    r"\b(?P<operation>%s|__atomic_load_n|__atomic_store_n)\(" % "|".join(OPERATIONS))
KEYWORDS = ("if", "for", "while", "switch", "catch", "do", "else", "return")


@dataclass
class Order:
    role: str     # success, or failure: the second order of a compare-exchange
    order: str


@dataclass
class Access:
    file: str
    function: str
    text: str     # object.operation, and a number where that is not unique
    first: int    # the lines that it stands on
    last: int
    orders: list

    @property
    def key(self):
        return (self.file, self.function, self.text)


def without_comments(text):
    """Comments, strings and the preprocessor's lines become blanks: offsets and lines stay."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|^[ \t]*#[^\n]*', re.S | re.M)
    return pattern.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)


def closing(text, start):
    """The offset behind the bracket that closes the one at `start`."""
    depth = 0
    for offset in range(start, len(text)):
        depth += text[offset] in "({["
        depth -= text[offset] in ")}]"
        if depth == 0:
            return offset + 1
    raise ValueError("an open bracket")


def name_of(header):
    """(kind, name) of the block that begins behind `header`."""
    header = re.sub(r"\[\[.*?\]\]|alignas\([^)]*\)|template\s*<[^{;]*?>\s*(?=\w)|\brequires\b[^{]*", " ",
                    header).strip()
    if re.search(r"\bplanted\(", header) and header.startswith("if constexpr"):
        return "plant", ""
    words = re.match(r"(?:(?:typedef|static|inline|constexpr)\s+)*(class|struct|enum|union|namespace)\b",
                     header)
    if words:
        names = re.match(r"(?:enum\s+)?(?:class|struct|union|namespace|enum)\s*(?:class\s+)?([\w:]*)",
                         header[words.start(1):])
        return words.group(1), names.group(1)
    function = re.match(r"[^(]*?([~\w:]+|operator\S+)\s*\(", header)
    if function is None or function.group(1) in KEYWORDS or "=" in header.split("(")[0] or \
            re.search(r"\[[^\]]*\]\s*\(", header) or \
            re.match(r"(else|if|for|while|do|switch|return)\b|\)", header):
        return "block", ""
    return "function", function.group(1)


def scopes(text):
    """[(begin, end, kind, name)] of all blocks in braces."""
    found, stack = [], []
    begin = 0
    for offset, letter in enumerate(text):
        if letter == "{":
            stack.append((offset, *name_of(text[begin:offset])))
            begin = offset + 1
        elif letter == "}":
            if stack:
                start, kind, name = stack.pop()
                found.append((start, offset, kind, name))
            begin = offset + 1
        elif letter == ";":
            begin = offset + 1
    return found


def function_at(blocks, offset):
    """Type and function around an offset; None inside a planted bug."""
    around = sorted(block for block in blocks if block[0] < offset < block[1])
    if any(kind == "plant" for _, _, kind, _ in around):
        return None
    functions = [name for _, _, kind, name in around if kind == "function"]
    types = [name for _, _, kind, name in around if kind in ("class", "struct") and name]
    name = functions[0] if functions else "?"
    return name if "::" in name or not types else f"{types[-1]}::{name}"


def orders_in(arguments, compares):
    """The orders in an access's arguments; of a choice by planted(), the one that ships."""
    arguments = re.sub(r"planted\(\d+\)\s*\?\s*[\w:]+\s*:", " ", arguments)
    depth, plain = 0, ""
    for letter in arguments:  # what inner calls say is theirs
        depth -= letter in ")]}"
        plain += letter if depth == 0 else " "
        depth += letter in "([{"
    names = [(one or two.lower()) for one, two in ORDER.findall(plain)]
    roles = ["success", "failure"] if compares else ["success"]
    return [Order(role, name) for role, name in zip(roles, names)]


def read_file(root, path):
    text = without_comments(path.read_text())
    blocks, accesses, counts = scopes(text), [], {}
    for found in ACCESS.finditer(text):
        end = closing(text, found.end() - 1)
        operation = found.group("operation")
        orders = orders_in(text[found.end():end - 1], operation.startswith("compare_exchange"))
        function = function_at(blocks, found.start())
        if not orders or function is None:
            continue
        what = f"{found.group('object')}.{operation}" if found.group("object") else operation
        key = (function, what)
        counts[key] = counts.get(key, 0) + 1
        accesses.append(Access(str(path.relative_to(root)), function, what,
                               text.count("\n", 0, found.start()) + 1, text.count("\n", 0, end) + 1, orders))
    seen = {}
    for access in accesses:
        key = (access.function, access.text)
        if counts[key] > 1:
            seen[key] = seen.get(key, 0) + 1
            access.text += f" {seen[key]}"
    return accesses


def strays_in(root, path):
    text = without_comments(path.read_text())
    blocks = scopes(text)
    covered = [(found.start(), closing(text, found.end() - 1)) for found in ACCESS.finditer(text)]
    for found in ORDER.finditer(text):
        inside = any(first <= found.start() < last for first, last in covered)
        if not inside and function_at(blocks, found.start()) is not None:
            yield f"{path.relative_to(root)}:{text.count(chr(10), 0, found.start()) + 1}"


def sources(root):
    return sorted(path for path in (Path(root) / "runtime").rglob("*") if path.suffix in (".h", ".cc"))


def read(root):
    return [access for path in sources(root) for access in read_file(Path(root), path)]


def strays(root):
    return [place for path in sources(root) for place in strays_in(Path(root), path)]
