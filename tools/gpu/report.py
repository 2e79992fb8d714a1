"""Markdown and SVG of a record of `gpu_suite bench` or `gpu_suite peers`: nothing is in them that is not in the record."""
from report import agreement, bars, quantile, table

from .machine import say

NETWORKS = {"vgg16": "VGG-16", "zf": "ZF"}


def named(network):
    return NETWORKS.get(network, network)


def ms(value):
    return "%.3f" % value


def times(samples):
    return [ms(quantile(samples, q)) for q in (0.5, 0.9, 0.99, 0.999)]


def head(record, title):
    machine, lines = record["machine"], ["# " + title, ""]
    gpu = machine["gpu"]
    lines.append("%s%s. %s, %s cores, %s. Driver and limits: %s. Commit %s%s, compiled for %s. %s." % (
        gpu.get("name", "a GPU"), ", %d multiprocessors" % gpu["multiprocessors"] if "multiprocessors" in gpu else "",
        machine.get("cpu", "unknown processor"), machine["cpus"], machine["os"], machine.get("nvidia_smi", "not known"),
        record["commit"][:12], " with changes" if record["modified"] else "", record["architectures"], record["date"]))
    lines += ["", "    " + record["command"], ""]
    for name, about in record["networks"].items():
        lines.append("%s: %s, input %dx%d." % (named(name), about["weights"], about["height"], about["width"]))
    return lines + ["", "The picture is one of weights/images, resized to the network's input.", ""]


def clocks(entries):
    """The range that the multiprocessors' clock was seen in, right behind each measurement."""
    seen = [entry["gpu"]["clocks.sm"] for entry in entries if entry.get("gpu", {}).get("clocks.sm") is not None]
    power = [entry["gpu"]["power.draw"] for entry in entries if entry.get("gpu", {}).get("power.draw") is not None]
    if not seen:
        return ["Clocks: not known.", ""]
    text = "Clock of the multiprocessors behind each measurement: %.0f to %.0f MHz" % (min(seen), max(seen))
    return [text + ("; power %.0f to %.0f W." % (min(power), max(power)) if power else "."), ""]


def left_out(entries, name):
    missing = [(name(e), e["result"], e["why"]) for e in entries if e["result"] != "measured"]
    if not missing:
        return []
    return ["## Without a number", ""] + table(["what", "result", "why"], [
        [what, result, " ".join(why.split()).replace("|", "/")] for what, result, why in missing]) + [""]


# --- bench


def ceiling_lines(record):
    limits, lines = record["ceilings"], ["## Ceilings", ""]
    lines.append("Floors of layers are their FLOP at these rates or their bytes at the rate of the copy, whichever takes longer. "
                 "Measured in this run by PyTorch's largest matrix product and copy, or assumed.")
    if "absent" in record["rates"]:
        lines += ["", "Not measured: %s." % record["rates"]["absent"]]
    rows = [[name, "%.4g TFLOP/s" % limits[name]["tflop_per_s"], limits[name]["source"]]
            for name in ("fp16", "bf16", "tf32", "tf32x3", "fp32")]
    rows.append(["copy, read and written", "%.4g GB/s" % limits["copy"]["gb_per_s"], limits["copy"]["source"]])
    return lines + [""] + table(["what", "rate", ""], rows) + [""]


def of_kind(record, *kinds):
    return [e for e in record["steps"] if "bench" in e and e["kind"] in kinds]


def request_row(entry):
    bench = entry["bench"]
    return [named(entry["network"]), entry["precision"], *times(bench["samples_ms"]),
            "%.3f" % (quantile(bench["samples_ms"], 0.99) / quantile(bench["samples_ms"], 0.5)), str(len(bench["samples_ms"]))]


REQUEST = ["network", "precision", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "p99/p50", "requests"]


def requests(record):
    lines = []
    for kind, title in (("latency", "One image, from its pixels in the host's memory to its boxes there"),
                        ("no_upload", "One image whose pixels lie on the GPU"),
                        ("random_sizes", "64 sizes in turn, more than a session keeps"),
                        ("no_graphs", "One image, kernel by kernel in place of a CUDA graph"),
                        ("latency_cudnn", "One image with the kernels of cuDNN and cuBLASLt where they take the layer")):
        entries = of_kind(record, kind)
        if entries:
            lines += ["## " + title, ""] + table(REQUEST, map(request_row, entries)) + [""]
    return lines


def several(record):
    """Images per second, by how many are in a call and by how many sessions there are."""
    lines = []
    for prefix, title in (("batch_", "Images per second, by images in a call"), ("sessions_", "Images per second, by sessions")):
        found = {}
        for entry in record["steps"]:
            if "bench" in entry and (entry["kind"].startswith(prefix) or entry["kind"] == "latency"):
                number = 1 if entry["kind"] == "latency" else int(entry["kind"][len(prefix):])
                found.setdefault((entry["network"], entry["precision"]), {})[number] = entry["bench"]["images_per_s"]
        numbers = sorted({number for by in found.values() for number in by})
        if len(numbers) > 1:
            rows = [[named(network), precision] + ["%.1f" % by[n] if n in by else "-" for n in numbers]
                    for (network, precision), by in found.items() if len(by) > 1]
            lines += ["## " + title, ""] + table(["network", "precision", *map(str, numbers)], rows) + [""]
    return lines


def first_requests(record):
    rows = []
    for entry in of_kind(record, "new_sizes"):
        first, known = entry["bench"]["samples_ms"], entry["bench"]["known_ms"]
        more = [a - b for a, b in zip(first, known)]
        rows.append([named(entry["network"]), entry["precision"], ms(quantile(first, 0.5)), ms(quantile(known, 0.5)),
                     ms(quantile(more, 0.5)), ms(max(more)), str(len(first))])
    header = ["network", "precision", "first p50 ms", "known p50 ms", "more, p50 ms", "more, most ms", "sizes"]
    return ["## The first request of a size", ""] + table(header, rows) + [""] if rows else []


def memory(record):
    rows = []
    for entry in record["steps"]:
        if "bench" not in entry or not (entry["kind"] == "latency" or entry["kind"].startswith(("batch_", "sessions_"))):
            continue
        bench = entry["bench"]
        rows.append([named(entry["network"]), entry["precision"], str(bench["batch"]), str(bench["concurrency"])] + [
            "%.1f" % (size / 2**20) for size in (
                bench["arena_bytes"], bench["arena_reserved_bytes"], sum(s["staging_bytes"] for s in bench["sessions"]),
                bench["packed_weight_bytes"], bench["peak_rss_bytes"])])
    header = ["network", "precision", "batch", "sessions", "arena used MiB", "reserved MiB, of each", "page-locked MiB",
              "packed weights MiB", "host peak MiB"]
    return ["## Memory", ""] + table(header, rows) + [""] if rows else []


def layers(record):
    lines = []
    others = {(e["network"], e["precision"]): {layer["layer"]: layer for layer in e["bench"]["layers"]}
              for e in of_kind(record, "layers_cudnn")}
    for entry in of_kind(record, "layers"):
        list_, other = entry["bench"]["layers"], others.get((entry["network"], entry["precision"]), {})
        lines += ["## Layers of %s, %s" % (named(entry["network"]), entry["precision"]), "",
                  "Each among %d of its kind in one CUDA graph. Sum %s ms, floors %s ms%s." % (
                      entry["bench"]["layer_repeats"], ms(sum(layer["ms"] for layer in list_)),
                      ms(sum(layer["floor_ms"] for layer in list_)),
                      "; with the libraries' kernels %s ms" % ms(sum(layer["ms"] for layer in other.values())) if other else ""),
                  ""]
        stages = {}     # in the order of the network
        for layer in list_:
            stages[layer["stage"]] = stages.get(layer["stage"], 0.0) + layer["ms"]
        lines += ["By stage: %s." % ", ".join("%s %.1f us" % (stage, 1000 * sum_) for stage, sum_ in stages.items()), ""]
        header, rows = ["layer", "kernel", "us", "floor us", "bound by", "floor / time", "TFLOP/s"], []
        for layer in list_:
            row = [layer["layer"], layer["kernel"], "%.1f" % (1000 * layer["ms"]), "%.1f" % (1000 * layer["floor_ms"]),
                   layer["bound"], "-" if layer["of_floor"] is None else "%.0f %%" % (100 * layer["of_floor"]),
                   "%.1f" % (layer["gflop_per_s"] / 1000) if layer["gflop_per_s"] else ""]
            if other:
                theirs = other.get(layer["layer"])
                row += [theirs["kernel"], "%.1f" % (1000 * theirs["ms"])] if theirs else ["-", "-"]
            rows.append(row)
        lines += table(header + (["kernel of --algo cudnn", "us"] if other else []), rows) + [""]
    return lines


def bench_markdown(record):
    lines = head(record, "On a GPU") + clocks(record["steps"])
    lines += requests(record) + several(record) + first_requests(record) + memory(record) + ceiling_lines(record)
    return "\n".join(lines + layers(record) + left_out(record["steps"], lambda e: e["id"])) + "\n"


def bench_svg(record):
    floors = {(e["network"], e["precision"]): sum(layer["floor_ms"] for layer in e["bench"]["layers"])
              for e in of_kind(record, "layers")}
    rows = [("%s, %s" % (named(e["network"]), e["precision"]), quantile(e["bench"]["samples_ms"], 0.5), True,
             floors.get((e["network"], e["precision"]))) for e in of_kind(record, "latency")]
    return bars("%s: milliseconds an image, median, and the floor of its layers" % record["machine"]["gpu"].get("name", "GPU"),
                rows, 3) if rows else None


# --- peers


def peers_markdown(record):
    lines = head(record, "Beside PyTorch on a GPU") + clocks(record["rows"])
    for network, size in record["networks"].items():
        measured = [r for r in record["rows"] if r["network"] == network and r["result"] == "measured"]
        if not measured:
            continue
        base = next(r for r in measured if r["id"] == "torch-fp32") if any(
            r["id"] == "torch-fp32" for r in measured) else None
        lines += ["## %s, %dx%d" % (named(network), size["height"], size["width"]), "",
                  "One image at a time in turns, from its pixels in the host's memory to its boxes there; the ratio is to the "
                  "median of PyTorch's eager fp32.", ""]
        rows = []
        for row in measured:
            p50, p90, p99, _ = times(row["samples_ms"])
            ratio = "-" if base is None else "%.3f" % (quantile(row["samples_ms"], 0.5) / quantile(base["samples_ms"], 0.5))
            rows.append([row["name"], row["precision"], p50, p90, p99, str(len(row["samples_ms"])), ratio,
                         "what the others are compared with" if row["rule"] is None else agreement(row)])
        lines += table(["program", "precision or mode", "p50 ms", "p90 ms", "p99 ms", "images", "ratio",
                        "compared with frcnn fp32"], rows) + [""]
        lines += layer_table(network, measured)
    return "\n".join(lines + left_out(record["rows"], lambda r: "%s, %s" % (named(r["network"]), r["id"]))) + "\n"


def layer_table(network, rows):
    """Convolutions and matrix products, by everybody who timed them alone."""
    timed = {row["id"]: {layer["layer"]: layer for layer in row["layers"]} for row in rows if row.get("layers")}
    theirs = [id for id in timed if id.startswith("torch")]
    if not theirs:
        return []
    lines = ["### Layers of %s, microseconds" % named(network), "",
             "PyTorch's are F.conv2d with its bias (cuDNN on a GPU) or torch.mm without (cuBLAS), by turns on memory that no cache "
             "holds; ours as frcnn bench --per-layer times them, bias and ReLU included.", ""]
    table_rows = []
    for name, layer in timed[theirs[0]].items():
        table_rows.append([name, layer["op"]] + ["%.1f" % (1000 * by[name]["ms"]) if name in by else "-"
                                                 for by in timed.values()])
    return lines + table(["layer", "peer's op", *timed], table_rows) + [""]


def peers_svg(record):
    rows = [("%s: %s, %s" % (named(r["network"]), r["name"].split(",")[0], r["precision"]), quantile(r["samples_ms"], 0.5),
             r["id"].startswith("frcnn"), None) for r in record["rows"] if r["result"] == "measured"]
    return bars("%s: milliseconds an image, median" % record["machine"]["gpu"].get("name", "GPU"), rows, 3) if rows else None


def write(record, prefix):
    """PREFIX.md, and PREFIX.svg where there is something to draw."""
    kinds = {"gpu_suite bench": (bench_markdown, bench_svg), "gpu_suite peers": (peers_markdown, peers_svg)}
    if record.get("kind") not in kinds:
        raise SystemExit("gpu_suite: this is no record of bench or peers: %s" % record.get("kind"))
    for make, suffix in zip(kinds[record["kind"]], ("md", "svg")):
        text = make(record)
        if text is not None:
            with open("%s.%s" % (prefix, suffix), "w") as file:
                file.write(text)
            say("%s.%s" % (prefix, suffix))
