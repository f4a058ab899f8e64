"""Compiles the whole runtime anew, in a way of the caller's and in a few seconds: all of it as one source.

    objects = compile_runtime(root, ["g++", "-O2", "-fPIC"], scratch)
    subprocess.run(["g++", "program.cc", *objects, *link_flags()])

So a compiler sees everything at once, which is more than it does in the library: what it must not do over a
switch it has more reason to do here.
"""

import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# What meson gives the library (runtime/meson.build).
ARGUMENTS = ["-std=c++20", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-ftls-model=initial-exec",
             "-fstack-clash-protection", "-fstack-protector-strong", "-fcf-protection=branch"]
ASSEMBLY = ["arch/x86_64/adopt.S", "arch/x86_64/switch.S"]


def link_flags():
    """What a program that links these objects needs beside them."""
    asked = subprocess.run(["pkg-config", "--libs", "absl_statusor", "absl_time", "liburing"], check=True,
                           capture_output=True, text=True)
    return [*shlex.split(asked.stdout), "-lpthread"]


def compile_runtime(root, way, scratch, more_sources=()):
    """The objects of the runtime, and then those of `more_sources`, which are compiled as users do."""
    whole = Path(scratch) / "weft.cc"
    sources = sorted(Path(root).glob("runtime/*/*.cc"))
    whole.write_text("".join(f'#include "{source}"\n' for source in sources))
    jobs = [(whole, ARGUMENTS)] + [(Path(root) / source, []) for source in ASSEMBLY]
    jobs += [(Path(source), ["-std=c++20"]) for source in more_sources]

    def compile_one(job):
        source, arguments = job
        target = Path(scratch) / f"{source.name}.o"
        subprocess.run([*way, f"-I{root}", f"-I{root}/runtime/include", *arguments, "-c", source,
                        "-o", target], check=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(compile_one, jobs))
