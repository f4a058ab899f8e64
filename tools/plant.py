"""Plants each bug of runtime/base/plant.h in turn, and fails unless the test named for it turns red.

    python3 tools/plant.py [number or group...]

tests/plants.tsv names the tests. A bug is built into the library by meson's option `plant`, in a lane's
own compiler and options; a test of a model is built with its bug in every build of the tests, and is green
when it has found it. Each test runs without a bug first: one that is red anyway proves nothing.

A line for each bug, and at the end how many were found.
"""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass

import lanes
from lanes import ROOT

PLANT_LINE = re.compile(r"^// +(\d+)  (.*\S) {2,}\S+$", re.MULTILINE)  # the last column is a tag


@dataclass(frozen=True)
class Plant:
    number: int
    group: str
    test: str
    lane: str
    bug: str

    @property
    def of_model(self):
        return self.test.endswith(f"_plant_{self.number}")


def bugs():
    """What runtime/base/plant.h says is wrong, by number."""
    text = (ROOT / "runtime/base/plant.h").read_text()
    return {int(number): " ".join(bug.split()) for number, bug in PLANT_LINE.findall(text)}


def read_plants():
    """The rows of tests/plants.tsv. The lane may be left out: it is release then."""
    known, plants = bugs(), []
    for line in (ROOT / "tests/plants.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            number, group, test, *lane = line.split("\t")
            plants.append(Plant(int(number), group, test, lane[0] if lane else "release",
                                known.get(int(number), "")))
    return plants


class Tree:
    """A build folder of one lane, whose library holds one bug at a time, or none."""

    def __init__(self, lane):
        self.lane = lanes.LANES[lane]
        self.folder = ROOT / "build" / f"plant-{lane}"
        self.plant = None

    def configure(self, plant):
        if plant == self.plant:
            return
        options = [*lanes.meson_options(self.lane), f"-Dplant={plant}"]
        compilers = {"CXX": self.lane.compiler, "CC": lanes.C_COMPILER[self.lane.compiler]}
        fresh = not (self.folder / "build.ninja").exists()
        command = (["meson", "setup", *options, self.folder] if fresh else
                   ["meson", "configure", *options, self.folder])
        self.quietly(command, os.environ | compilers)
        self.quietly(["ninja", "-C", self.folder, "build.ninja"])
        self.plant = plant
        self.tests = {row["name"]: row for row in self.introspect("tests")}
        self.targets = {row["id"]: row["filename"] for row in self.introspect("targets")}

    def introspect(self, what):
        return json.loads((self.folder / f"meson-info/intro-{what}.json").read_text())

    def quietly(self, command, environment=None):
        ended = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if ended.returncode != 0:
            sys.exit(f"{ended.stdout}\ntools/dev plant: failed: {' '.join(map(str, command))}")

    def run(self, plant, test):
        """Builds what the test needs, runs it, and returns meson's word for its end and its status."""
        self.configure(plant)
        if test not in self.tests:
            sys.exit(f"tests/plants.tsv names {test}, which build {self.folder.name} does not have")
        row = self.tests[test]
        files = [name for target in row["depends"] for name in self.targets[target]]
        files += [part for part in map(os.path.normpath, row["cmd"]) if part.startswith(f"{self.folder}/")]
        self.quietly(["ninja", "-C", self.folder,
                      *dict.fromkeys(os.path.relpath(name, self.folder) for name in files)])
        log = self.folder / "meson-logs/testlog.json"
        log.unlink(missing_ok=True)
        subprocess.run([*lanes.runner(self.lane), "meson", "test", "-C", self.folder, "--no-rebuild",
                        "--timeout-multiplier", str(self.lane.slowdown), test],
                       env=os.environ | self.lane.environment, stdout=subprocess.DEVNULL, cwd=ROOT)
        ended = json.loads(log.read_text().splitlines()[0])
        return ended["result"], ended["returncode"]


def show(plant, verdict, seconds):
    print(f"{plant.number:4}  {plant.group}  {plant.test:40} {verdict:24} {seconds:4.0f} s  {plant.bug}",
          flush=True)


def main(chosen):
    plants = [plant for plant in read_plants()
              if not chosen or str(plant.number) in chosen or plant.group in chosen]
    trees = {lane: Tree(lane) for lane in dict.fromkeys(plant.lane for plant in plants)}

    # Without a bug first, all tests of a tree, so that its library is built once for that.
    red_anyway = set()
    for lane, test in sorted({(plant.lane, plant.test) for plant in plants if not plant.of_model}):
        result, status = trees[lane].run(0, test)
        if result != "OK":
            red_anyway.add((lane, test))
            print(f"without a bug {test} in lane {lane} is not green: {result}, exit status {status}",
                  flush=True)

    found = 0
    for plant in sorted(plants, key=lambda plant: (not plant.of_model, plant.number)):
        start = time.monotonic()
        if (plant.lane, plant.test) in red_anyway:
            verdict = "red without it as well"
        else:
            result, status = trees[plant.lane].run(0 if plant.of_model else plant.number, plant.test)
            if (result == "OK") != plant.of_model or result == "SKIP":
                verdict = "NOT FOUND"
            else:
                verdict = {"OK": "found by its model", "TIMEOUT": "red: timed out"}.get(
                    result, f"red: exit status {status}")
                found += 1
        show(plant, verdict, time.monotonic() - start)

    print(f"\n{found} of {len(plants)} planted bugs found")
    return found == len(plants) and found > 0


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
