"""`gpu_suite bench`: how long the networks take on this GPU, and where. Every number is `frcnn bench`'s, each taken by a
process of its own, so that one that crashes or hangs costs its own number alone; the most wanted ones come first, since what
the time does not suffice for is left out."""
import json
import os
import tempfile

from . import libraries, roofline
from .machine import gpu_state, run_within, say

DEVICE = "cuda:0"
LEAST_SECONDS = 3       # a step that would get less is not begun
LIBRARIES = ("--algo", "cudnn")
KEPT = ("first_image_ms", "load_ms", "median_ms", "p90_ms", "p99_ms", "p999_ms", "mean_ms", "images_per_s", "samples_ms",
        "known_ms", "proposals", "detections", "batch", "concurrency", "arena_bytes", "arena_reserved_bytes",
        "packed_weight_bytes", "peak_rss_bytes", "sessions", "layer_repeats", "layers", "input", "threads", "libraries")


def add_options(parser):
    parser.add_argument("--input", metavar="HxW", help="of the networks; default: their own limits, 600x1000")
    parser.add_argument("--iters", type=int, default=2000, metavar="N", help="requests that a quantile is taken from, at most")
    parser.add_argument("--warmup", type=int, default=10, metavar="N", help="requests before them")
    parser.add_argument("--batches", default="2,4,8,16", metavar="LIST", help="images in a call, beside 1")
    parser.add_argument("--sessions", default="2,4,8", metavar="LIST", help="sessions at once, beside 1")
    parser.add_argument("--step-seconds", type=float, default=60, metavar="S", help="time limit of one measurement")
    parser.add_argument("--rates-on", default="cuda", help="the device for the reference rates, as PyTorch calls it")
    parser.add_argument("--rates-side", type=int, default=8192, metavar="N", help="rows of the reference product's matrices")


class Step:
    """One call of frcnn bench. `seconds` is how long it measures, at most, beside loading and warming up."""

    def __init__(self, network, precision, kind, count, seconds, *arguments):
        self.network, self.precision, self.kind, self.seconds = network, precision, kind, seconds
        self.arguments = ["--iters", str(count), *arguments]
        self.id = "/".join((network, precision, kind))


def thorough(network, precision, options):
    few, many = min(20, options.iters), min(500, options.iters)
    yield Step(network, precision, "no_upload", options.iters, 5, "--pixels-on-device")
    for batch in filter(None, options.batches.split(",")):
        yield Step(network, precision, "batch_" + batch, many, 2, "--batch", batch)
    yield Step(network, precision, "new_sizes", few, 10, "--sizes", "new")
    yield Step(network, precision, "random_sizes", many, 4, "--sizes", "random")
    for sessions in filter(None, options.sessions.split(",")):
        yield Step(network, precision, "sessions_" + sessions, many, 3, "--concurrency", sessions)
    yield Step(network, precision, "no_graphs", many, 3, "--no-graphs")


def plan(networks, options):
    precisions = options.precisions.split(",")
    steps = [Step(network, precision, "latency", options.iters, 20 if precision == precisions[0] else 8)
             for precision in precisions for network in networks]
    layers = ["--per-layer"]
    steps += [Step(network, precision, "layers", min(20, options.iters), 10, *layers)
              for precision in precisions for network in networks]
    steps += [step for network in networks for step in thorough(network, precisions[0], options)]
    # The libraries' kernels; in tf32x3 all are ours.
    others = [precision for precision in precisions if precision != "tf32x3"]
    steps += [Step(network, precision, "layers_cudnn", min(20, options.iters), 10, *layers, *LIBRARIES)
              for precision in others for network in networks]
    steps += [Step(network, precision, "latency_cudnn", min(500, options.iters), 3, *LIBRARIES)
              for precision in others for network in networks]
    for precision in precisions[1:]:
        steps += [step for network in networks for step in thorough(network, precision, options)]
    return steps


def outcome(code, err):
    if code is None:
        return "out of time", ""
    if code == 0:
        return "measured", ""
    if libraries.NOT_HERE in err:
        return "absent", err.strip().splitlines()[-1][:300]
    return "failed", "exit code %d: %s" % (code, " ".join(err.strip().splitlines()[-3:])[:500])


def rounded(bench):
    """Samples to a tenth of a microsecond, for the size of the record."""
    for key in ("samples_ms", "known_ms"):
        if bench.get(key):
            bench[key] = [round(ms, 4) for ms in bench[key]]
    return bench


def measure(suite, options, folder, step, model, limits):
    """The step's entry in the record."""
    entry = {"id": step.id, "network": step.network, "precision": step.precision, "kind": step.kind}
    seconds = min(suite.left(), options.step_seconds)
    if seconds < LEAST_SECONDS:
        return {**entry, "result": "not measured", "why": "no time was left"}
    out = os.path.join(folder, "step.json")
    if os.path.exists(out):
        os.remove(out)
    arguments = ["--device", DEVICE, "--precision", step.precision, "--image", suite.picture, "--warmup", str(options.warmup),
                 "--seconds", str(step.seconds), *step.arguments]
    if options.input:
        arguments += ["--input", options.input]
    code, _, err = run_within([suite.tool, "bench", model, *arguments, "--json", out], seconds, suite.library_environment,
                              separate=True)
    entry["command"] = "frcnn bench MODEL " + " ".join(arguments).replace(suite.picture, "PICTURE")
    entry["result"], why = outcome(code, err)
    if entry["result"] == "measured":
        try:
            with open(out) as file:
                bench = json.load(file)
            entry["bench"] = rounded({key: bench[key] for key in KEPT})
            entry["gpu"] = gpu_state()     # while its clocks are still what the work made them
            if step.kind.startswith("layers"):
                roofline.add_floors(entry["bench"]["layers"], step.precision, limits)
        except (OSError, ValueError, KeyError) as error:
            entry.pop("bench", None)
            entry["result"], why = "failed", "no record of its own: %r" % error
    if entry["result"] != "measured":
        entry["why"] = why or "no end within %.0f s" % seconds
    return entry


def make_model(suite, network, folder):
    """(path, None), or (None, why there is none). What is not a published network's name is a file's."""
    if os.path.exists(network):
        return network, None
    path = os.path.join(folder, network + ".safetensors")
    code, _, err = run_within([suite.tool, "bench", "--arch", network, "--device", DEVICE, "--image", suite.picture, "--iters",
                               "1", "--warmup", "0", "--save-model", path], min(120, suite.left()), dict(os.environ),
                              separate=True)
    result, why = outcome(code, err)
    return (path, None) if result == "measured" else (None, "no model: %s %s" % (result, why))


def short_name(network):
    return os.path.splitext(os.path.basename(network))[0]


def about_network(network, height, width):
    return {"weights": "the weights of " + os.path.basename(network) if os.path.exists(network)
            else "random weights of He's variance", "height": height, "width": width}


def bench(suite, options, record):
    found = roofline.measured_rates(options.python, options.rates_on, options.rates_side, max(1, min(60, suite.left() / 4)))
    if "absent" in found:
        say("note: reference rates are assumed: %s" % found["absent"])
    limits = roofline.ceilings(found)
    suite.library_environment = libraries.environment(options.python)
    record.set(rates=found, ceilings=limits, gpu_at_start=gpu_state(), networks={}, steps=[], count={})
    record.save()
    with tempfile.TemporaryDirectory(prefix="gpu_suite_bench_") as folder:
        models, sources, absent = {}, {}, {}
        for network in options.networks.split(","):
            path, why = make_model(suite, network, folder)
            models[short_name(network)], sources[short_name(network)] = path, network
            if why:
                absent[short_name(network)] = why
                say("%s: %s" % (network, why))
        for step in plan(list(models), options):
            if step.network in absent:
                entry = {"id": step.id, "network": step.network, "precision": step.precision, "kind": step.kind,
                         "result": "not measured", "why": absent[step.network]}
            else:
                entry = measure(suite, options, folder, step, models[step.network], limits)
            record["steps"].append(entry)
            if "bench" in entry:
                size = entry["bench"]["input"]
                record["networks"][step.network] = about_network(sources[step.network], size["height"], size["width"])
            results = [e["result"] for e in record["steps"]]
            record.set(count={result: results.count(result) for result in dict.fromkeys(results)})
            record.save()
            say("%s: %s" % (step.id, "median %.3f ms, p99 %.3f ms" % (entry["bench"]["median_ms"], entry["bench"]["p99_ms"])
                            if "bench" in entry else "%s, %s" % (entry["result"], entry["why"])))
    return not absent and all(e["result"] in ("measured", "not measured", "absent") for e in record["steps"])
