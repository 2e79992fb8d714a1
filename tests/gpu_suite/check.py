"""tools/gpu_suite without a GPU: the suite over the emulator, and machines that refuse this or that.

usage: check.py --tool GPU_SUITE --record RECORDER --suite EMULATED_SUITE --work FOLDER
"""
import argparse
import json
import os
import shutil
import subprocess
import sys

parser = argparse.ArgumentParser()
for name in ("tool", "record", "suite", "work"):
    parser.add_argument("--" + name, required=True)
options = parser.parse_args()

sys.dont_write_bytecode = True
sys.path[:0] = [os.path.dirname(options.tool), os.path.join(os.path.dirname(options.tool), "peers")]
from gpu import folder, machine, prepare, sanitize

FOLDER = os.path.join(options.work, "suite")
RECORD = os.path.join(options.work, "record.json")
BINARY = os.path.join(FOLDER, folder.BINARY)
ABOUT = {"commit": "0123abc", "modified": False, "architectures": "none", "nvcc": "none"}
failed = []


def expect(what, true, text=""):
    print("%s: %s" % ("ok" if true else "FAILED", what), flush=True)
    if not true:
        print(text[-6000:])
        failed.append(what)


def run(*arguments, path="", **environment):
    everything = {name: value for name, value in os.environ.items()
                  if name not in ("FRCNN_REQUIRE_GPU", "CUDA_HOME", "CUDA_PATH")}
    everything.update(environment)
    if path:
        everything["PATH"] = path + os.pathsep + everything["PATH"]
    if os.path.exists(RECORD):
        os.remove(RECORD)
    result = subprocess.run([sys.executable, options.tool, *arguments, "--folder", FOLDER, "--json", RECORD],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=everything)
    record = None
    if os.path.exists(RECORD):
        with open(RECORD) as file:
            record = json.load(file)
    return result.returncode, result.stdout, record


def script(path, text):
    with open(path, "w") as file:
        file.write("#!/bin/bash\n" + text)
    os.chmod(path, 0o755)


shutil.rmtree(options.work, ignore_errors=True)
os.makedirs(FOLDER)
shutil.copy(options.suite, BINARY)
prepare.write_references(options.record, FOLDER, small=True)
prepare.finish_folder(FOLDER, ABOUT)

# All is well: the cases pass and are recorded.
CASES = "[conformance],[detector],preprocess*,max_pool*,top_k*"
code, text, record = run("correctness", "--cases", CASES)
expect("the emulated suite passes", code == 0 and record is not None, text)
if record:
    expect("the record says so", record["passed"] and record["count"]["passed"] == len(record["cases"]) > 3, text)
    expect("the record names machine, commit and schema", record["schema"] == folder.SCHEMA and
           record["machine"]["gpu"]["emulated"] and record["commit"] == ABOUT["commit"], text)
    notes = [note for case in record["cases"] for note in case["notes"]]
    expect("what was compared is counted", any("elements compared" in note for note in notes) and
           any("mma_f16" in note for note in notes), text)
    expect("what is missing is said", record["missing_references"] == ["tiny_vgg16_", "tiny_zf_"] and
           "SKIPPED: the folder was prepared without tiny_zf_" in text, text)

# One wrong number in the references.
conformance = os.path.join(FOLDER, "references", "conformance.safetensors")
with open(conformance, "rb") as file:
    content = bytearray(file.read())
content[-1000] ^= 1                             # of the data, which the header precedes
with open(conformance, "wb") as file:
    file.write(content)
code, text, record = run("correctness", "--cases", "[conformance]")
expect("a damaged file is refused", code == 1 and record is None and "not as it was prepared" in text, text)
prepare.finish_folder(FOLDER, ABOUT)
code, text, record = run("correctness", "--cases", "[conformance]")
expect("a wrong number is found", code == 1 and record["count"]["failed"] == 1 and "elements differ" in text, text)
content[-1000] ^= 1
with open(conformance, "wb") as file:
    file.write(content)

prepare.finish_folder(FOLDER, ABOUT)

# A case kills the device: it fails, and the others run in a new process and pass.
code, text, record = run("correctness", "--cases", "[dies],preprocess*,max_pool*")
results = {case["name"]: case["result"] for case in record["cases"]} if record else {}
expect("a dead device fails one case alone", code == 1 and len(results) > 3 and
       [name for name in results if results[name] != "passed"] == ["the emulated device dies"], text)

# One that nobody looks at while the case runs, as the last thing that happens.
code, text, record = run("correctness", "--cases", "preprocess*,[unseen]")
results = {case["name"]: case["result"] for case in record["cases"]} if record else {}
expect("a device that dies behind a case's last look fails that case", code == 1 and len(results) > 1 and
       [name for name in results if results[name] != "passed"] == ["the emulated device dies unseen"], text)

# The program dies in the middle of the second case: it is named, and the ones behind it are run all the same.
os.rename(BINARY, BINARY + ".real")
DIE = """case "$*" in
*--reporter*) "%(real)s" "$@" | awk '/<TestCase /{n++} {print} n==2{exit}'; kill -SEGV $$ ;;
esac
exec "%(real)s" "$@"
""" % {"real": BINARY + ".real"}
script(BINARY, DIE)
prepare.finish_folder(FOLDER, ABOUT)
code, text, record = run("correctness", "--cases", "preprocess*,max_pool*,top_k*")
count = record["count"] if record else {}
expect("a program that dies fails the cases it dies in", code == 1 and "the program ended here" in text and
       count["passed"] > 0 and count["failed"] > 0 and count["passed"] + count["failed"] == len(record["cases"]), text)

# All cases pass, and then the program ends badly.
script(BINARY, """"%s" "$@" || exit $?; case "$*" in *--reporter*) exit 1 ;; esac\n""" % (BINARY + ".real"))
prepare.finish_folder(FOLDER, ABOUT)
code, text, record = run("correctness", "--cases", "preprocess*")
expect("a program that ends badly behind its cases fails", code == 1 and "ended behind this case" in text, text)

try:
    machine.run(["sleep", "600"], 1)
    expect("a program that does not answer ends the suite", False)
except SystemExit as stop:
    expect("a program that does not answer ends the suite", "no answer within 1 s: sleep 600" in str(stop))

# A suite that does not start, or finds a GPU that does not work, is a failure and no skip.
for what, text_of_suite in (("says nothing", "exit 0"), ("crashes", "kill -SEGV $$"), ("lacks a library", "echo no; exit 127"),
                            ("says nonsense", "echo '[1]'"), ("fails behind its answer", """echo '{"device": {}}'; exit 1"""),
                            ("finds a broken GPU", """echo '{"error": "driver too old"}'""")):
    script(BINARY, text_of_suite + "\n")
    prepare.finish_folder(FOLDER, ABOUT)
    code, text, record = run("correctness")
    expect("a suite that %s fails" % what, code == 1 and "FAILED" in text and record is None, text)

# No GPU: a loud skip, or a failure where one is required.
script(BINARY, """echo '{"error": "no CUDA-capable device is detected", "no_device": true}'\n""")
prepare.finish_folder(FOLDER, ABOUT)
for mode in ("correctness", "sanitize", "bench", "peers"):
    code, text, record = run(mode)
    expect(mode + " without a GPU is skipped loudly", code == 0 and "SKIPPED" in text and record is None, text)
    code, text, record = run(mode, FRCNN_REQUIRE_GPU="1")
    expect(mode + " without a GPU fails where one is required", code == 1 and "FAILED" in text, text)
os.rename(BINARY + ".real", BINARY)
prepare.finish_folder(FOLDER, ABOUT)
code, text, record = run("correctness", "--cases", "max_pool*", FRCNN_REQUIRE_GPU="1")
expect("missing networks fail where a GPU is required", code == 1 and record and not record["passed"] and
       "FAILED: the folder was prepared without tiny_zf_" in text, text)

# A sanitizer that works (it runs the cases, in allocations of exact size), finds something, refuses, or is not there.
SANITIZER = os.path.join(options.work, "bin")
os.makedirs(SANITIZER)
script(os.path.join(SANITIZER, "compute-sanitizer"), """case "$2" in
memcheck) shift 6; "$@" && echo "========= ERROR SUMMARY: 0 errors"; exit $? ;;
racecheck) echo "========= RACECHECK SUMMARY: 3 hazards displayed (3 errors, 0 warnings)"; exit 99 ;;
synccheck) echo "========= Error: Failed to initialize"; exit 1 ;;
initcheck) exit 0 ;;                            # without a word
esac
""")
code, text, record = run("sanitize", path=SANITIZER)
results = [tool["result"] for tool in record["tools"]] if record else []
expect("each sanitizer's answer is understood", results == ["passed", "failed", "refused", "failed"], text)
expect("a finding is a failure", code == 1 and not record["passed"], text)

# As compute-sanitizer words it: what it could not do beside a summary, or what the program printed, is no refusal.
ANSWERS = (
    ("passed", 0, "========= COMPUTE-SANITIZER\nPassed all 3 test cases with 7 assertions.\n========= ERROR SUMMARY: 0 errors"),
    ("passed", 0, "All tests passed (1 assertion in 1 test case)\n"
                  "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"),
    ("failed", 0, "No tests ran.\n========= ERROR SUMMARY: 0 errors"),
    ("failed", 0, "SKIPPED: no GPU to run on\n========= ERROR SUMMARY: 0 errors"),
    ("failed", 99, "========= Invalid __global__ write of size 4 bytes\n========= ERROR SUMMARY: 1 error"),
    ("failed", 99, "========= Program hit cudaErrorNotSupported (error 801) due to \"operation not supported\" on CUDA API "
                   "call to cudaMalloc.\n========= ERROR SUMMARY: 1 error"),
    ("failed", 1, "========= ERROR SUMMARY: 0 errors"),
    ("failed", 1, "Permission denied: this is the program's own\nerror: failed to launch"),
    ("failed", 1, "========= Target application terminated before first instrumented API call"),
    ("refused", 1, "========= Error: Device not supported. Please refer to the documentation"),
    ("refused", 1, "========= Internal Sanitizer Error: The Sanitizer encountered an error when launching a kernel"),
    ("refused", 255, "========= Error: No attachable process found. compute-sanitizer timed-out."),
)
for wanted, status, answer in ANSWERS:
    script(os.path.join(SANITIZER, "compute-sanitizer"), "cat <<'END'\n%s\nEND\nexit %d\n" % (answer, status))
    code, text, record = run("sanitize", path=SANITIZER)
    expect("understood as %s: %s" % (wanted, answer.splitlines()[-1]),
           record and {tool["result"] for tool in record["tools"]} == {wanted}, text)

# A detector runs under initcheck with its memory written once.
script(os.path.join(SANITIZER, "compute-sanitizer"), """case "$2" in
initcheck) [ "$FRCNN_FILLED_ARENA" = 1 ] || exit 5; shift 6; "$@" || exit 6 ;;
*) [ -z "$FRCNN_FILLED_ARENA" ] || exit 7; echo "Passed 1 test case with 1 assertion." ;;
esac
echo "========= ERROR SUMMARY: 0 errors"
""")
code, text, record = run("sanitize", "--cases", "[sanitize]", path=SANITIZER)
expect("only initcheck sees filled memory", code == 0 and record["passed"], text)

script(os.path.join(SANITIZER, "compute-sanitizer"), "sleep 600\n")
code, text, record = run("sanitize", "--seconds", "5", path=SANITIZER)
expect("a sanitizer that does not end is stopped", code == 1 and record and
       {tool["result"] for tool in record["tools"]} == {"out of time"}, text)
script(os.path.join(SANITIZER, "compute-sanitizer"), """echo "========= Error: Failed to initialize"; exit 1\n""")
code, text, record = run("sanitize", path=SANITIZER)
expect("a refusal is said and gone on from", code == 0 and "REFUSED" in text and len(record["tools"]) == 4, text)
code, text, record = run("sanitize", path=SANITIZER, FRCNN_REQUIRE_GPU="1")
expect("a refusal fails where a GPU is required", code == 1, text)
if sanitize.find_sanitizer() is None:
    code, text, record = run("sanitize")
    expect("no sanitizer is a loud skip", code == 0 and "SKIPPED: compute-sanitizer" in text, text)

# What was prepared has all its detectors, is held to its size, and is refused where it lacks a file.
try:
    prepare.check_references(FOLDER)
    expect("a folder without the tiny networks is refused", False)
except SystemExit as stop:
    expect("a folder without the tiny networks is refused", "tiny_vgg16" in str(stop))
os.environ.pop("FRCNN_SHARED", None)
prepare.check_references(FOLDER, optional=True)      # where there is no reference data
os.environ["FRCNN_SHARED"] = "somewhere"
try:
    prepare.check_references(FOLDER, optional=True)
    expect("but not where there should be reference data", False)
except SystemExit as stop:
    expect("but not where there should be reference data", "tiny_zf" in str(stop))
for name in ("tiny_vgg16_224", "tiny_zf_224"):
    os.makedirs(os.path.join(FOLDER, "references", "detectors", name))
prepare.check_references(FOLDER)
for name in ("tiny_vgg16_224", "tiny_zf_224"):
    os.rmdir(os.path.join(FOLDER, "references", "detectors", name))
os.remove(os.path.join(FOLDER, "references", "detectors", "0_random", "model.safetensors"))
code, text, record = run("correctness")
expect("a folder that lacks a file is refused", code == 1 and "model.safetensors" in text, text)
prepare.check_size(FOLDER, 1 << 40)
try:
    prepare.check_size(FOLDER, 1000)
    expect("a folder that is too large is refused", False)
except SystemExit as stop:
    expect("a folder that is too large is refused", "1000" in str(stop))
shutil.rmtree(options.work)
sys.exit("%d failed: %s" % (len(failed), "; ".join(failed)) if failed else 0)
