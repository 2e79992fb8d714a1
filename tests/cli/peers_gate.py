"""Runs tools/bench_peers with the right weights, which it must time, and with others, which it must refuse.

usage: peers_gate.py BENCH_PEERS FRCNN MODEL OTHER.caffemodel PICTURE OUT     Exit code 77: no PyTorch or OpenCV here.
"""
import json
import os
import subprocess
import sys

try:
    import cv2
    import torchvision
except ImportError:
    sys.exit(77)

script, frcnn, model, other, picture, out = sys.argv[1:]


def run(*more):
    return subprocess.run([sys.executable, script, model, "--frcnn", frcnn, "--image", picture, "--rounds", "2", "--warmup", "0",
                           "--peers", "debian", "--out", out, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


refused = run("--peer-caffemodel", other)
if refused.returncode != 1 or " ms " in refused.stdout or "no time is taken" not in refused.stderr or os.path.exists(out + ".md"):
    sys.exit("other weights were not refused:\n" + refused.stdout + refused.stderr)
if "agree" not in refused.stderr:
    sys.exit("refused for another reason:\n" + refused.stderr)

# A current PyTorch that cannot take part is named, and the others are timed.
absent = out + ".python"
with open(absent, "w") as file:
    file.write("#!/bin/sh\necho absent for this test\n")
os.chmod(absent, 0o755)
taken = run("--peers", "debian,pytorch", "--pytorch", absent)
if taken.returncode != 0:
    sys.exit("the same weights were refused:\n" + taken.stderr)
with open(out + ".json") as file:
    record = json.load(file)
row = next(r for r in record["rows"] if r["id"] == "torchvision-debian")
if len(row["samples_ms"]) != 2 or row["parity"]["proposals"]["compared"] < 100 or row["parity"]["detections"]["compared"] < 20:
    sys.exit("not what was asked for: %s" % row)
if ["pytorch", "for this test"] not in record["absent"]:
    sys.exit("who is not here: %s" % record["absent"])
for suffix in (".md", ".svg"):
    if row["name"] not in open(out + suffix).read():
        sys.exit("%s does not name %s" % (suffix, row["name"]))
