"""`gpu_suite peers`: frcnn beside PyTorch on this GPU, with the same weights and the same picture.

Everybody says what it found before it is timed. Our float32 is held against PyTorch's eager float32, which has the same
conventions: where they differ, or one of them is missing, nobody is timed. Who else differs, crashes, hangs or is not there
is told with the reason and without a time, and the others go on.
"""
import json
import os
import tempfile
import time

import ours
import parity
from runner import PeerError, Runner

from . import libraries
from .bench import LIBRARIES, about_network, make_model, short_name
from .folder import BESIDE
from .machine import gpu_state, say

DEVICE = "cuda:0"
ARBITER = "fp32"      # PyTorch's mode that our own float32 must agree with
COMPARED = "fp32,tf32,half,bf16-tuned,half-fused,half-graphed,half-compiled"
LAYERS_OF = {"fp32": "fp32", "tf32": "tf32", "half": "fp16", "bf16-tuned": "bf16"}      # PyTorch's mode: our precision
OWN = {"frcnn": (), "cudnn": LIBRARIES}      # who runs in frcnn, and its options
NAMES = {"frcnn": "frcnn", "cudnn": "frcnn with cuDNN and cuBLASLt"}
SHARE_TO_START = 0.75   # of a network's time; compiling takes most of it
UNCOUNTED = 3           # images at the start of a turn that do not count


def add_options(parser):
    parser.add_argument("--modes", default=COMPARED, metavar="LIST", help="of PyTorch, as tools/peers/network.py has them")
    parser.add_argument("--torch-device", default="cuda", help="as PyTorch calls it")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of PyTorch on the host")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="turns of each program")
    parser.add_argument("--images", type=int, default=20, metavar="N", help="in a turn; the first %d do not count" % UNCOUNTED)
    parser.add_argument("--start-seconds", type=float, default=180, metavar="S", help="for a program to find its first boxes")
    parser.add_argument("--answer-seconds", type=float, default=60, metavar="S", help="for one answer after that")
    parser.add_argument("--peer-weights", metavar="FILE", help="for PyTorch in place of the model's; to try the comparison")


class NoPicture(Exception):
    """A Python without a library that resizes pictures, hence without what is compared here."""


class Network:
    """One network's turn: programs, what became of them, and the time that it may take."""

    def __init__(self, suite, options, name, model, folder, seconds):
        self.suite, self.options, self.name, self.model, self.folder = suite, options, name, model, folder
        self.begun, self.seconds = time.monotonic(), seconds
        self.config = ours.model_config(model)
        self.rows, self.present = [], []
        with open(self.path("config.json"), "w") as file:
            json.dump(self.config, file)
        why = ours.make_picture(suite.picture, self.config, self.path("image.png"), options.python)
        if why:
            raise NoPicture(why)

    def path(self, name):
        return os.path.join(self.folder, name)

    def left(self, share=1.0):
        return max(0.0, share * self.seconds - (time.monotonic() - self.begun))

    def results(self, precision, *more):
        return ours.results(self.suite.tool, self.model, self.config, DEVICE, precision, 1, self.folder, *more,
                            seconds=max(1.0, min(self.options.answer_seconds, self.left())),
                            environment=self.suite.library_environment)

    def start(self, who, precision):
        """A row, and a Runner among `present` if it takes part. who: frcnn, cudnn (its kernels in frcnn) or torch."""
        id, mine = "%s-%s" % (who, precision), who != "torch"
        rule = None if id == "frcnn-fp32" else "equal" if precision == "fp32" else "close"
        row = {"network": self.name, "id": id, "precision": precision, "rule": rule}
        self.rows.append(row)
        if not self.left(SHARE_TO_START):
            row.update(result="not measured", why="no time was left")
            return
        command = self.own_command(precision, *OWN[who]) if mine else self.torch_command(id, precision)
        runner = Runner(id, precision, rule, command, self.options.threads, NAMES.get(who), self.path(id + ".log"),
                        self.suite.library_environment if mine else None)
        try:
            why = runner.wait_until_ready(max(1.0, min(self.options.start_seconds, self.left(SHARE_TO_START))))
            if why is not None:
                row.update(result="absent", why=why)
                return
            row["name"] = runner.name
            if rule is None:
                theirs = self.reference = self.results(precision)
            elif mine:
                theirs = self.results(precision, *OWN[who])
            else:
                with open(self.path(id + ".json")) as file:
                    theirs = json.load(file)
            self.compare(row, runner, theirs)
        except (PeerError, OSError, ValueError, KeyError) as error:
            runner.kill()
            row.update(result="absent" if libraries.NOT_HERE in str(error) else "failed", why=str(error))

    def own_command(self, precision, *more):
        return [self.suite.tool, "bench", self.model, "--step", "--image", self.path("image.png"), "--device", DEVICE,
                "--precision", precision, "--warmup", "3", *more]

    def torch_command(self, id, mode):
        return [self.options.python, os.path.join(BESIDE, "peers", "worker.py"), id, self.path("config.json"),
                self.options.peer_weights or self.model, "none", self.path("image.png"), str(self.options.threads),
                self.path(id + ".json"), self.options.torch_device]

    def compare(self, row, runner, theirs):
        # Of ourselves it is known that we agree, but not that there is enough to compare.
        row["parity"], wrong = parity.compare(self.reference, theirs, row["rule"] or "equal")
        if wrong:
            runner.kill()
            row.update(result="refused", why="; ".join(wrong))
            return
        row["result"] = "agrees"
        runner.row = row
        self.present.append(runner)

    def drop(self, runner, result, why):
        runner.kill()
        runner.row.update(result=result, why=why)
        for key in ("samples_ms", "layers"):
            runner.row.pop(key, None)
        self.present.remove(runner)

    def start_all(self):
        # The two that decide about everybody else come first, what takes longest to start last.
        precisions = ["fp32"] + [p for p in self.options.precisions.split(",") if p != "fp32"]
        modes = [ARBITER] + [mode for mode in self.options.modes.split(",") if mode != ARBITER]
        queue = [("frcnn", "fp32"), ("torch", ARBITER)] + [("frcnn", p) for p in precisions[1:]]
        queue += [("cudnn", p) for p in precisions if p != "tf32x3"] + [("torch", mode) for mode in modes[1:]]
        self.reference = {"proposals": [], "detections": []}
        for who, how in queue:
            self.start(who, how)
            say("%s/%s-%s: %s" % (self.name, who, how, ", ".join(filter(None, (self.rows[-1]["result"],
                                                                               self.rows[-1].get("why"))))))
            # Without these two there is nothing to hold the others against.
            if len(self.rows) <= 2 and self.rows[-1]["result"] != "agrees":
                why = "%s: %s" % (self.rows[-1]["id"], self.rows[-1]["why"])
                for runner in list(self.present):
                    self.drop(runner, "not measured", "nobody is timed, since of %s" % why)
                for who_else, what in queue[len(self.rows):]:
                    self.rows.append({"network": self.name, "id": "%s-%s" % (who_else, what), "precision": what,
                                      "rule": None, "result": "not measured", "why": "nobody is timed, since of %s" % why})
                return

    def take_turns(self, save):
        for _ in range(self.options.rounds):
            for runner in list(self.present):
                if not self.left():
                    return
                try:
                    samples = [runner.image(self.options.answer_seconds) for _ in range(self.options.images)]
                except PeerError as error:
                    self.drop(runner, "failed", str(error))
                    continue
                runner.row.setdefault("samples_ms", []).extend(round(ms, 4) for ms in samples[UNCOUNTED:])
                runner.row.update(result="measured", gpu=gpu_state())
            save()

    def take_layers(self):
        """PyTorch's, layer by layer, and ours in the same precision."""
        for mode, precision in LAYERS_OF.items():
            runner = next((r for r in self.present if r.id == "torch-" + mode), None)
            if runner is None or not self.left():
                continue
            try:
                runner.row["layers"] = json.loads(runner.ask("layers", max(1.0, min(self.options.answer_seconds, self.left()))))
            except (PeerError, ValueError) as error:
                runner.row["layers_why"] = str(error)
                runner.kill()
                self.present.remove(runner)
            for who, more in OWN.items():
                row = next((r.row for r in self.present if r.id == "%s-%s" % (who, precision)), None)
                if row is not None and self.left():
                    self.own_layers(row, *more)

    def own_layers(self, row, *more):
        out = self.path("layers.json")
        try:
            ours.run(self.suite.tool, "bench", self.model, "--image", self.path("image.png"), "--device", DEVICE,
                     "--precision", row["precision"], "--iters", str(min(20, self.options.images)), "--warmup", "1",
                     "--per-layer", "--seconds", "1", "--json", out, *more,
                     seconds=max(1.0, min(self.options.answer_seconds, self.left())),
                     environment=self.suite.library_environment)
            with open(out) as file:
                row["layers"] = json.load(file)["layers"]
        except (PeerError, OSError, ValueError, KeyError) as error:
            row["layers_why"] = str(error)

    def finish(self):
        for runner in self.present:
            if runner.row["result"] == "agrees":
                runner.row.update(result="not measured", why="no time was left")
            runner.kill()


def peers(suite, options, record):
    suite.library_environment = libraries.environment(options.python)
    record.set(rows=[], networks={}, gpu_at_start=gpu_state(), count={})
    names = options.networks.split(",")
    done = []

    def save(rows=()):
        record["rows"] = done + list(rows)
        results = [row["result"] for row in record["rows"]]
        record.set(count={result: results.count(result) for result in dict.fromkeys(results)})
        record.save()
    for i, name in enumerate(names):
        with tempfile.TemporaryDirectory(prefix="gpu_suite_peers_") as folder:
            seconds = suite.left() / (len(names) - i)
            network = None
            try:
                model, why = make_model(suite, name, folder)
                if why:
                    raise PeerError(why)
                network = Network(suite, options, short_name(name), model, folder, seconds)
                record["networks"][network.name] = about_network(name, network.config["short_side"],
                                                                 network.config["long_side"])
                network.start_all()
                save(network.rows)
                network.take_turns(lambda: save(network.rows))
                network.take_layers()
                done += network.rows
            except NoPicture as error:
                done.append({"network": short_name(name), "id": "torch-" + ARBITER, "precision": ARBITER, "result": "absent",
                             "why": str(error)})
            except (PeerError, OSError, ValueError, KeyError) as error:
                done += network.rows if network else []
                done.append({"network": short_name(name), "id": "all", "precision": "", "result": "failed",
                             "why": str(error)})
                say("%s: %s" % (name, error))
            finally:
                if network:
                    network.finish()
            save()
    absent = [row for row in done if row["result"] == "absent" and row["id"] == "torch-" + ARBITER]
    for row in absent:
        say("SKIPPED: %s has nobody to be held against: %s" % (row["network"], row["why"]))
    good = all(row["result"] in ("measured", "absent", "not measured") for row in done)
    if absent and os.environ.get("FRCNN_REQUIRE_GPU") == "1":
        return False
    return good and (bool(absent) or any(row["result"] == "measured" for row in done))
