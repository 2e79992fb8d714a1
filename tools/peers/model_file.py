"""Reads the weights of a model's own file (docs/model_format.md), or of a caffemodel."""
import json
import struct

import numpy as np

import caffemodel


def safetensors(path):
    """{layer: [weight, bias]}, float32, in the published shapes."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
    data = np.memmap(path, np.uint8, "r", 8 + size)
    layers = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        if about["dtype"] != "F32":
            raise SystemExit("%s is %s; the peers read F32 only" % (name, about["dtype"]))
        layer, part = name.rsplit(".", 1)
        begin, end = about["data_offsets"]
        layers.setdefault(layer, {})[part] = data[begin:end].view("<f4").reshape(about["shape"])
    return {layer: [parts["weight"], parts["bias"]] for layer, parts in layers.items()}


def read(path):
    return caffemodel.read(path) if path.endswith(".caffemodel") else safetensors(path)
