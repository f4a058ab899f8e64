"""What is wrong with a built object, archive or program, as readelf shows it. [N1] [N2] [N4] [N5] [N8]"""

import re
import subprocess

# What an object may define for others: names of ours, and instances of templates of others.
OURS = re.compile(r"^(_ZG[VR]|_ZT[VISThv]|_Z)?[A-Z]*N?K?4weft|^weft_|^_ZT[hv]\w*N4weft")
HARDENED = ["-fstack-clash-protection", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2",
            "-fcf-protection=branch", "-ftls-model=initial-exec"]


def readelf(flags, path):
    return subprocess.run(["readelf", *flags, path], check=True, capture_output=True, text=True).stdout


def program_faults(path):
    """Of a linked program."""
    headers, dynamic = readelf(["-lW"], path), readelf(["-dW"], path)
    faults = []
    if [line.split()[6] for line in headers.splitlines() if "GNU_STACK" in line] != ["RW"]:
        faults.append("asks for an executable stack")
    if re.search(r"^\s+LOAD .* RWE ", headers, re.MULTILINE):
        faults.append("has a segment that is writable and executable")
    if "GNU_RELRO" not in headers or "BIND_NOW" not in dynamic:
        faults.append("binds lazily, or leaves its relocations writable")
    if not re.search(r"\(FLAGS_1\).*PIE", dynamic):
        faults.append("has a fixed address")
    if "SHSTK" in readelf(["-nW"], path):
        faults.append("is marked SHSTK")
    if "GLIBC_PRIVATE" in readelf(["-VW"], path):
        faults.append("imports what is private to glibc")
    return faults


def exported(path):
    """Names that an object or archive defines for others: (binding, visibility, name)."""
    for line in readelf(["-sW"], path).splitlines():
        words = line.split()
        if len(words) >= 8 and words[4] in ("GLOBAL", "WEAK", "UNIQUE") and words[6] != "UND":
            yield words[4], words[5], words[7]


def archive_faults(path):
    """Of the library: names of others, names that a shared library would export, a shadow stack."""
    faults = []
    for binding, visibility, name in exported(path):
        if binding == "GLOBAL" and not OURS.search(name):
            faults.append(f"defines {name}, which is no name of ours")
        if binding == "GLOBAL" and visibility == "DEFAULT":
            faults.append(f"exports {name} from whatever links it")
    if "SHSTK" in readelf(["-nW"], path):
        faults.append("is marked SHSTK")
    return faults


def flag_faults(command):
    """Of the command that compiles a source of the library."""
    words = command.split()
    return [f"is compiled without {flag}" for flag in HARDENED if flag not in words]
