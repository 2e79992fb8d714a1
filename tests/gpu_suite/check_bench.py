"""`gpu_suite bench`, `peers` and `report` without a GPU: frcnn over the emulator with a tiny network, PyTorch on the CPU where
there is one, and steps that crash, hang or get no time.

usage: check_bench.py --tool GPU_SUITE --frcnn EMULATED_FRCNN --suite EMULATED_SUITE --cudnn FAKE --cublaslt FAKE --work FOLDER
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

sys.dont_write_bytecode = True
import tiny_detector

parser = argparse.ArgumentParser()
for name in ("tool", "frcnn", "suite", "cudnn", "cublaslt", "work"):
    parser.add_argument("--" + name, required=True)
options = parser.parse_args()
sys.path[:0] = [os.path.dirname(options.tool), os.path.join(os.path.dirname(options.tool), "peers")]
from gpu import folder, prepare, roofline

FOLDER, RECORD = os.path.join(options.work, "suite"), os.path.join(options.work, "out", "record.json")
FRCNN, REAL = os.path.join(FOLDER, folder.TOOL), os.path.join(options.work, "frcnn.real")
SMALL, MODEL, OTHER = (os.path.join(options.work, name + ".safetensors") for name in ("small", "tiny", "other"))
LIBRARIES = {"FRCNN_CUDNN": options.cudnn, "FRCNN_CUBLASLT": options.cublaslt}
NONE = {"FRCNN_CUDNN": "/none", "FRCNN_CUBLASLT": "/none"}
ABOUT = {"commit": "0123abc", "modified": False, "architectures": "none", "nvcc": "none"}
failed = []


def expect(what, true, text=""):
    print("%s: %s" % ("ok" if true else "FAILED", what), flush=True)
    if not true:
        print(str(text)[-6000:])
        failed.append(what)


def written(suffix):
    path = RECORD[:-len("json")] + suffix
    if not os.path.exists(path):
        return ""
    with open(path) as file:
        return file.read()


def run(mode, *arguments, **environment):
    """Exit code, what was printed, the record; and all that was there before is gone."""
    shutil.rmtree(os.path.dirname(RECORD), ignore_errors=True)
    everything = {name: value for name, value in os.environ.items() if name != "FRCNN_REQUIRE_GPU"}
    everything.update(LIBRARIES)
    result = subprocess.run([sys.executable, options.tool, mode, *arguments, "--folder", FOLDER, "--json", RECORD],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**everything, **environment})
    return result.returncode, result.stdout, json.loads(written("json") or "null")


def script(path, text):
    with open(path, "w") as file:
        file.write("#!/bin/bash\n" + text)
    os.chmod(path, 0o755)


def tool_that(text):
    """frcnn, but for what the text does before; "" for itself."""
    script(FRCNN, text + 'exec "%s" "$@"\n' % REAL)
    prepare.finish_folder(FOLDER, ABOUT)


shutil.rmtree(options.work, ignore_errors=True)
os.makedirs(FOLDER)
shutil.copy(options.suite, os.path.join(FOLDER, folder.BINARY))
shutil.copy(options.frcnn, REAL)
prepare.copy_program(options.tool, FOLDER)
tool_that("")
expect("what travels has all that it imports", subprocess.run(
    [sys.executable, os.path.join(FOLDER, "gpu_suite"), "--help"], stdout=subprocess.DEVNULL).returncode == 0)
tiny_detector.make(SMALL, 24, 32)
tiny_detector.make(MODEL, 64, 80)
tiny_detector.make(OTHER, 64, 80, seed=8)

# --- bench: all is well

BENCH = ("--networks", SMALL, "--precisions", "fp16,fp32", "--iters", "2", "--warmup", "1", "--batches", "2", "--sessions",
         "2", "--rates-on", "cpu", "--rates-side", "64")
KINDS = ["latency", "layers", "layers_cudnn", "latency_cudnn", "no_upload", "batch_2", "new_sizes", "random_sizes", "sessions_2", "no_graphs"]
code, text, record = run("bench", *BENCH)
expect("the emulated benchmark passes", code == 0 and record and record["passed"], text)
if record:
    expect("the record names machine, commit, command and date", record["machine"]["gpu"]["emulated"] and
           record["commit"] == ABOUT["commit"] and "--precisions fp16,fp32" in record["command"] and record["date"] and
           record["kind"] == "gpu_suite bench", text)
    steps = {step["id"]: step for step in record["steps"]}
    expect("every step of both precisions is measured", sorted(steps) == sorted(
        "small/%s/%s" % (p, kind) for p in ("fp16", "fp32") for kind in KINDS) and
        record["count"] == {"measured": len(steps)}, text)
    expect("what is wanted most comes first", [step["kind"] for step in record["steps"]][:4] == ["latency"] * 2 + ["layers"] * 2)
    expect("a step has samples and its command", len(steps["small/fp16/latency"]["bench"]["samples_ms"]) == 2 and
           "--precision fp16" in steps["small/fp16/latency"]["command"])
    expect("a batch counts its images", steps["small/fp16/batch_2"]["bench"]["batch"] == 2)
    expect("sessions are as many", len(steps["small/fp32/sessions_2"]["bench"]["sessions"]) == 2)
    expect("new sizes have first and known times", len(steps["small/fp16/new_sizes"]["bench"]["known_ms"]) == 2)
    expect("no graph is made where none is wanted", steps["small/fp16/no_graphs"]["bench"]["sessions"][0]["captures"] == 0 <
           steps["small/fp16/latency"]["bench"]["sessions"][0]["captures"])
    layers = {layer["layer"]: layer for layer in steps["small/fp32/layers"]["bench"]["layers"]}
    limits = record["ceilings"]
    conv = layers["conv2"]
    floor = max(conv["gflop"] / limits["fp32"]["tflop_per_s"], conv["mbytes"] / limits["copy"]["gb_per_s"])
    expect("layers have the floors of the ceilings", conv["floor_ms"] == floor > 0 and limits["tf32"]["source"] == "assumed")
    # conv2 of 24x32: 8x8 inputs at stride 4, as many outputs at 8, of 8 channels.
    expect("bytes are those of inputs, weights and outputs", conv["mbytes"] * 1e6 == 4 * (
        6 * 8 * 8 + 8 * 8 * 9 + 8 + 3 * 4 * 8), conv)
    half = {layer["layer"]: layer for layer in steps["small/fp16/layers"]["bench"]["layers"]}["conv2"]
    expect("and half of it in half precision, but for the bias", half["mbytes"] * 1e6 == 2 * (
        6 * 8 * 8 + 8 * 8 * 9 + 3 * 4 * 8) + 4 * 8, half)
    theirs = {layer["layer"]: layer["kernel"] for layer in steps["small/fp32/layers_cudnn"]["bench"]["layers"]}
    expect("the libraries' kernels are named", theirs["conv2"].startswith("cudnn") and theirs["fc6"].startswith("cublas") and
           "cudnn" not in layers["conv2"]["kernel"] and steps["small/fp32/layers_cudnn"]["bench"]["libraries"] and
           not steps["small/fp32/layers"]["bench"]["libraries"], theirs)
    markdown, svg = written("md"), written("svg")
    expect("the report has every table", all(title in markdown for title in (
        "p99.9 ms", "by images in a call", "by sessions", "The first request of a size", "Memory", "Ceilings",
        "whose pixels lie on the GPU", "kernel by kernel", "Layers of small, fp16", "kernel of --algo cudnn", record["command"])) and
        "Without a number" not in markdown, markdown)
    expect("the drawing is one", ElementTree.fromstring(svg).tag.endswith("svg") and svg.count("<rect") == 1 + 2 * 2, svg)
    shown = subprocess.run([sys.executable, options.tool, "report", RECORD, "--out", RECORD[:-5] + ".again"])
    expect("report makes the same of the record", shown.returncode == 0 and written("again.md") == markdown and
           written("again.svg") == svg)
shown = subprocess.run([sys.executable, options.tool, "report", os.path.join(FOLDER, "prepared.json")], stderr=subprocess.PIPE)
expect("report refuses what is no record", shown.returncode != 0)

# --- bench: a crash, a hang, nonsense, no time

LESS = ("--networks", SMALL, "--precisions", "fp32", "--iters", "2", "--warmup", "1", "--batches", "2", "--sessions", "",
        "--python", "/bin/false", "--step-seconds", "15")
tool_that("""case "$*" in
*--per-layer*) kill -SEGV $$ ;;
*--pixels-on-device*) sleep 600 ;;
*--batch*) exit 0 ;;
*"--sizes new"*) while [ "$1" != --json ]; do shift; done; echo '{}' > "$2"; exit 0 ;;
*"--sizes random"*) echo "frcnn: error: no more" >&2; exit 1 ;;
esac
""")
code, text, record = run("bench", *LESS, **NONE)
results = {step["kind"]: step for step in record["steps"]} if record else {}
expect("each failure costs its own number", code == 1 and record and not record["passed"] and
       {kind: step["result"] for kind, step in results.items()} == {
           "latency": "measured", "layers": "failed", "layers_cudnn": "failed", "latency_cudnn": "absent", "no_upload": "out of time", "batch_2": "failed", "new_sizes": "failed",
           "random_sizes": "failed", "no_graphs": "measured"}, text)
if record:
    expect("and says why", "-11" in results["layers"]["why"] and "15 s" in results["no_upload"]["why"] and
           "no more" in results["random_sizes"]["why"] and "no record" in results["batch_2"]["why"] and
           "cuDNN was not found" in results["latency_cudnn"]["why"], results)
    expect("the report tells what has no number", "## Without a number" in written("md") and
           "small/fp32/no_upload" in written("md"), written("md"))
    expect("rates that were not measured are said to be assumed", record["ceilings"]["fp32"] == {
        "tflop_per_s": roofline.ASSUMED["fp32"], "source": "assumed"} and "reference rates are assumed" in text)
tool_that("")
code, text, record = run("bench", *LESS, "--seconds", "3")
expect("what got no time is no failure, and is told", code == 0 and record and
       {step["result"] for step in record["steps"]} <= {"measured", "not measured"} and
       record["steps"][-1]["why"] == "no time was left" and "no time was left" in written("md"), text)
tool_that("case $* in *--save-model*) exit 3 ;; esac\n")
code, text, record = run("bench", *LESS[2:], "--networks", "zf")
expect("without a model nothing is measured", code == 1 and {step["result"] for step in record["steps"]} == {"not measured"} and
       "exit code 3" in record["steps"][0]["why"], text)
# The program itself is killed: what there was is on the disk.
tool_that("case $* in *--per-layer*) kill -KILL $PPID; sleep 5 ;; esac\n")
code, text, record = run("bench", *LESS)
expect("a record survives its program", code == -9 and [step["kind"] for step in record["steps"]] == ["latency"], text)
tool_that("")

# --- peers

PEERS = ("--networks", MODEL, "--precisions", "fp32,fp16", "--modes", "fp32,bf16-tuned,half", "--rounds", "1", "--images", "4",
         "--torch-device", "cpu", "--threads", "1")
PYTHON = next((python for python in (sys.executable, "/usr/bin/python3") if subprocess.run(
    [python, "-c", "import numpy, torch, torchvision, cv2"], stderr=subprocess.DEVNULL).returncode == 0), None)


def rows_of(record):
    return {row["id"]: row for row in record["rows"]} if record else {}


def no_time(record):
    """Nowhere in the record or what was made of it."""
    return record and all("samples_ms" not in row and "layers" not in row for row in record["rows"]) and \
        "p50" not in written("md") and not written("svg")


BARE = os.path.join(options.work, "bare")
script(BARE, "echo neither >&2; exit 77\n")
code, text, record = run("peers", *PEERS, "--python", BARE)
expect("a Python without pictures is a loud skip", code == 0 and "SKIPPED: tiny has nobody" in text and no_time(record) and
       rows_of(record)["torch-fp32"]["why"] == "neither", text)
code, text, record = run("peers", *PEERS, "--python", BARE, FRCNN_REQUIRE_GPU="1")
expect("which fails where a GPU is required", code == 1, text)

if PYTHON is None:
    print("SKIPPED: no Python with torch, torchvision and cv2: peers are not tried")
else:
    script(BARE, """case "$1" in
*worker.py) echo "absent No module named 'torch'" ;;
*) exec "%s" "$@" ;;
esac
""" % PYTHON)
    code, text, record = run("peers", *PEERS, "--python", BARE)
    rows = rows_of(record)
    expect("without PyTorch nobody is timed, loudly", code == 0 and "SKIPPED: tiny has nobody" in text and
           rows["torch-fp32"]["result"] == "absent" and "torch" in rows["torch-fp32"]["why"] and no_time(record), text)

    code, text, record = run("peers", *PEERS, "--python", PYTHON)
    rows = rows_of(record)
    expect("peers are timed", code == 0 and {id: row["result"] for id, row in rows.items()} == {
        "frcnn-fp32": "measured", "torch-fp32": "measured", "frcnn-fp16": "measured", "cudnn-fp32": "measured",
        "cudnn-fp16": "measured", "torch-bf16-tuned": "measured", "torch-half": "absent"}, text)
    if record and record["passed"]:
        expect("enough was compared", all(row["parity"]["proposals"]["compared"] >= 100 and
                                          row["parity"]["detections"]["compared"] >= 20
                                          for row in rows.values() if row["result"] == "measured"), rows)
        expect("PyTorch's layers are timed", {layer["layer"]: layer["op"] for layer in rows["torch-fp32"]["layers"]}.items() >=
               {"conv1": "conv2d", "rpn_conv/3x3": "conv2d", "fc6": "mm", "bbox_pred": "mm"}.items(), rows)
        expect("and ours beside them, with either kernels", all(
            any(layer["layer"] == "fc6" and layer["kernel"].startswith(kernel) for layer in rows[id]["layers"])
            for id, kernel in (("frcnn-fp32", "gemm"), ("cudnn-fp32", "cublas"))), rows)
        markdown = written("md")
        expect("the report compares", "| PyTorch" in markdown and "Layers of tiny" in markdown and "torch-half" in markdown and
               "ratio" in markdown and "1.000" in markdown, markdown)
        expect("the drawing has everybody", written("svg").count("<rect") == 1 + 6, written("svg"))

    code, text, record = run("peers", *PEERS, "--python", PYTHON, "--peer-weights", OTHER)
    rows = rows_of(record)
    expect("other weights are refused, and nobody is timed", code == 1 and rows["torch-fp32"]["result"] == "refused" and
           "agree" in rows["torch-fp32"]["why"] and {rows[id]["result"] for id in rows if id != "torch-fp32"} ==
           {"not measured"} and no_time(record), text)

    # One that differs, one that crashes and one that hangs, each for itself.
    script(os.path.join(options.work, "python"), """case "$2" in
torch-bf16-tuned) exec "%(python)s" "$1" torch-bf16-tuned "$3" "%(other)s" "${@:5}" ;;
torch-bf16) kill -SEGV $$ ;;
torch-half) sleep 600 ;;
torch-tf32) "%(python)s" "$1" torch-fp32 "${@:3}" | head -n 1; echo broken ;;
esac
exec "%(python)s" "$@"
""" % {"python": PYTHON, "other": OTHER})
    code, text, record = run("peers", *PEERS[:4], "--modes", "fp32,bf16-tuned,bf16,half,tf32", *PEERS[6:], "--python",
                             os.path.join(options.work, "python"), "--start-seconds", "30", "--answer-seconds", "30", **NONE)
    rows = rows_of(record)
    expect("who differs, crashes, hangs or breaks off gets no time, and the others do", code == 1 and
           {id: row["result"] for id, row in rows.items()} == {
               "frcnn-fp32": "measured", "torch-fp32": "measured", "frcnn-fp16": "measured", "torch-bf16-tuned": "refused",
               "cudnn-fp32": "absent", "cudnn-fp16": "absent", "torch-bf16": "failed", "torch-half": "failed", "torch-tf32": "failed"} and
           not any("samples_ms" in row for row in rows.values() if row["result"] != "measured"), text)
    if record:
        expect("each with its reason", "mean IoU" in rows["torch-bf16-tuned"]["why"] and "-11" in rows["torch-bf16"]["why"] and
               "no answer" in rows["torch-half"]["why"], rows)

    code, text, record = run("peers", *PEERS, "--python", PYTHON, "--seconds", "0.5")
    expect("without time nobody is timed", no_time(record) and {row["result"] for row in record["rows"]} <=
           {"not measured", "failed"}, text)

shutil.rmtree(options.work)
sys.exit("%d failed: %s" % (len(failed), "; ".join(failed)) if failed else 0)
