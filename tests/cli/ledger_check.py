"""tools/accuracy_ledger over a tiny detector, two pictures and an emulated GPU.

usage: ledger_check.py TOOL FRCNN_EMULATED WORK
"""
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "gpu_suite"))
import tiny_detector

TOOL, FRCNN, WORK = sys.argv[1:]
OBJECT = "<object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object>"


def write_png(path, width, height, seed):
    draw = random.Random(seed)
    rows = b"".join(b"\0" + bytes(draw.randrange(256) for _ in range(3 * width)) for _ in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
                   chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def make_data():
    data = os.path.join(WORK, "VOC")
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        os.makedirs(os.path.join(data, folder))
    for name in ("a", "b"):
        write_png(os.path.join(data, "JPEGImages", name + ".png"), 80, 64, ord(name))
        with open(os.path.join(data, "Annotations", name + ".xml"), "w") as file:
            file.write("<annotation><size><width>80</width><height>64</height><depth>3</depth></size>%s</annotation>" % OBJECT)
    with open(os.path.join(data, "ImageSets/Main/test.txt"), "w") as file:
        file.write("a\nb\n")
    return data


def run(*arguments, fails=False):
    done = subprocess.run([sys.executable, TOOL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert (done.returncode != 0) == fails, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stderr


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    data, model = make_data(), os.path.join(WORK, "tiny.safetensors")
    tiny_detector.make(model, 64, 80)
    record = os.path.join(WORK, "record.json")
    measure = ["measure", model, "--data", data, "--images", os.path.join(data, "JPEGImages", "a.png"), "--frcnn", FRCNN,
               "--threads", "1", "--work", os.path.join(WORK, "runs"), "--record", record]
    told = run(*measure, "--device", "cuda:0", "--precisions", "fp32,fp16")
    assert told.count("+ ") == 6, told      # set and image, in two precisions and the reference's
    with open(record) as file:
        cuda = json.load(file)
    assert cuda["device_name"].startswith("Emulated GPU"), cuda["device_name"]
    assert [row["precision"] for row in cuda["rows"]] == ["fp32", "fp16"]
    errors = {row["precision"]: {stage["stage"]: stage["relative_l2"] for stage in row["stages"]} for row in cuda["rows"]}
    assert list(errors["fp32"])[:3] == ["data", "conv1", "pool1"] and "rpn_bbox_pred" in errors["fp32"], errors
    for stage in ("conv1", "conv2", "rpn_cls_score"):
        assert errors["fp32"][stage] < 1e-6, (stage, errors)
        assert 1e-5 < errors["fp16"][stage] < 1e-2, (stage, errors)
    for row in cuda["rows"]:
        assert row["images"] == 2 and row["detections"]["compared"] > 0, row
    fp32 = cuda["rows"][0]
    assert fp32["map"] == fp32["reference_map"] and fp32["detections"]["same"] == 1, fp32

    assert run(*measure, "--device", "cuda:0", "--precisions", "fp32,fp16") == ""     # nothing is made again
    other = measure[:4] + ["--images", os.path.join(data, "JPEGImages", "b.png")] + measure[6:]
    assert run(*other, "--device", "cuda:0", "--precisions", "fp32").count("--dump") == 2     # but another picture is
    run(*measure, "--device", "cuda:0", "--precisions", "fp32,fp16")
    cpu = os.path.join(WORK, "cpu.json")
    run(*measure[:-1], cpu, "--precisions", "fp32")
    with open(cpu) as file:
        row = json.load(file)["rows"][0]
    assert all(stage["relative_l2"] == 0 and stage["largest"] == 0 for stage in row["stages"]), row

    document = os.path.join(WORK, "accuracy.md")
    run("table", record, cpu, "--out", document)
    with open(document) as file:
        text = file.read()
    assert text.count("| tiny.safetensors | cuda:0: Emulated GPU") == 2 and text.count("| tiny.safetensors | cpu") == 1, text
    assert "| conv1 |" in text

    assert "tf32: not of this device" in run(*measure, "--precisions", "tf32", fails=True)
    with open(os.path.join(WORK, "broken.json"), "w") as file:
        file.write("{")
    assert "broken.json" in run("table", os.path.join(WORK, "broken.json"), "--out", document, fails=True)
    assert "no_such" in run(*measure[:3], os.path.join(WORK, "no_such"), *measure[4:], "--device", "cuda:0", fails=True)


main()
