"""What frcnn finds, and what the others need of its model."""
import json
import os
import struct
import subprocess

from runner import PeerError


def run(frcnn, *words, seconds=None, environment=None):
    try:
        done = subprocess.run([frcnn, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=seconds,
                              env=environment)
    except subprocess.TimeoutExpired:
        raise PeerError("frcnn %s: no answer within %.0f s" % (" ".join(words), seconds))
    if done.returncode != 0:
        raise PeerError("frcnn %s: %s" % (" ".join(words), done.stderr.strip() or "exit code %d" % done.returncode))


def model_config(path):
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        return json.loads(json.loads(file.read(size))["__metadata__"]["frcnn"])


def make_picture(source, config, to, python):
    """A PNG of the network's input size, which everybody reads. None, or why this Python cannot make it."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "picture.py")
    done = subprocess.run([python, script, source, str(config["short_side"]), str(config["long_side"]), to],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    last = " ".join(done.stderr.strip().splitlines()[-1:])
    if done.returncode not in (0, 77):
        raise PeerError("no picture: exit code %d: %s" % (done.returncode, last))
    return last if done.returncode else None


def results(frcnn, model, config, device, precision, threads, folder, *more, seconds=None, environment=None):
    """As parity.compare() takes them, of folder/image.png. more: options of frcnn detect."""
    found, proposals = os.path.join(folder, "found.json"), os.path.join(folder, "proposals.json")
    run(frcnn, "detect", model, os.path.join(folder, "image.png"), "--device", device, "--threads", str(threads),
        "--precision", precision, "--score", str(config["score_threshold"]), "--json", found, "--proposals-out", proposals,
        *more, seconds=seconds, environment=environment)
    with open(found) as a, open(proposals) as b:
        detections, rois = json.load(a)["images"][0]["detections"], json.load(b)["images"][0]
    return {"proposals": [[s] + box for s, box in zip(rois["scores"], rois["boxes"])],
            "detections": [[d["class_id"], d["score"]] + d["box"] for d in detections]}
