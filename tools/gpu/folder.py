"""The folder that travels: what must be in it, and using it where the GPU is."""
import hashlib
import json
import os
import sys
import time

from .machine import ANSWER_SECONDS, run, say

SCHEMA = 1
BINARY = "frcnn_gpu_suite"
DETECTORS = ("0_random", "tiny_vgg16_", "tiny_zf_")     # folders among the references begin so
TOOL = "frcnn"
PICTURE = "picture.jpg"
BESIDE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))     # the folder of the program gpu_suite
ROOT = os.path.dirname(BESIDE)                                           # of the sources, where they are


def folder_files(folder):
    for directory, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            yield os.path.join(directory, name)


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def missing_references(folder):
    """Of the detectors which the suite is about; without them it would pass and say little."""
    there = os.listdir(os.path.join(folder, "references", "detectors"))
    return [name for name in DETECTORS if not any(found.startswith(name) for found in there)]


class Suite:
    """The folder that `prepare` made, on a machine that may have a GPU."""

    def __init__(self, folder, seconds):
        self.folder, self.binary = folder, os.path.join(folder, BINARY)
        self.tool, self.picture = os.path.join(folder, TOOL), os.path.join(folder, PICTURE)
        self.ends = time.monotonic() + seconds
        self.environment = dict(os.environ, FRCNN_SUITE_REFERENCES=os.path.join(folder, "references"))
        if not os.path.exists(os.path.join(folder, "prepared.json")):
            sys.exit("gpu_suite: %s was not made by `gpu_suite prepare`" % folder)
        with open(os.path.join(folder, "prepared.json")) as file:
            self.prepared = json.load(file)
        if self.prepared["schema"] != SCHEMA:
            sys.exit("gpu_suite: %s is of schema %s, this program of %d" % (folder, self.prepared["schema"], SCHEMA))
        for name, file in self.prepared["files"].items():
            path = os.path.join(folder, name)
            if not os.path.exists(path) or digest_of(path) != file["sha256"]:
                sys.exit("gpu_suite: %s is missing or not as it was prepared" % path)

    def left(self):
        return max(0.0, self.ends - time.monotonic())

    def device(self):
        """Its description. Ends the program where there is none (a skip, said loudly) or the suite does not start."""
        try:
            probe = run([self.binary, "--probe"], ANSWER_SECONDS, env=self.environment)
        except OSError as error:
            sys.exit("FAILED: the suite does not start on this machine: %s" % error)
        try:
            found = json.loads(probe.stdout.strip().splitlines()[-1]) if probe.returncode == 0 else {}
        except (ValueError, IndexError):
            found = {}
        if not isinstance(found, dict) or not isinstance(found.get("error", found.get("device")), (str, dict)):
            sys.exit("FAILED: the suite does not start on this machine: exit code %d, %s" %
                     (probe.returncode, probe.stdout.strip()[-2000:]))
        if "device" in found:
            return found["device"]
        skipped = found.get("no_device") is True and os.environ.get("FRCNN_REQUIRE_GPU") != "1"
        say("%s: no GPU to run on, so nothing was tested: %s" % ("SKIPPED" if skipped else "FAILED", found["error"]))
        sys.exit(0 if skipped else 1)

    def command(self, *arguments):
        return [self.binary, *arguments]
