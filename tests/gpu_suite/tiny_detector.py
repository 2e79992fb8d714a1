"""A detector of two convolutions with random weights, as a model file: small enough for the emulator."""
import array
import json
import os
import random
import struct

SOURCES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def shipped_config():
    """Of the model that ships; every key is in it."""
    with open(os.path.join(SOURCES, "weights", "bccd_zf.safetensors"), "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        return json.loads(json.loads(file.read(size))["__metadata__"]["frcnn"])


def make(path, height, width, seed=7):
    """Finds more than a hundred proposals and 20 boxes in a picture of 64x80."""
    config = shipped_config()
    convolution = {"kind": "conv", "stride": 2, "pad": 1, "relu": True}
    config.update(
        name="tiny", classes=["__background__", "cat", "dog"], short_side=height, long_side=width, feat_stride=8,
        spatial_scale=0.125, anchor_ratios=[0.5, 1, 2], anchor_scales=[1, 2], rpn_min_size=4, post_nms_top_n=200, pooled_h=3,
        pooled_w=3, score_threshold=0.05, dropout_test_scale=1,
        backbone=[{**convolution, "name": "conv1"},
                  {"kind": "max_pool", "name": "pool1", "kernel": 2, "stride": 2, "pad": 0, "rounding": "ceil"},
                  {**convolution, "name": "conv2"}])
    anchors = len(config["anchor_ratios"]) * len(config["anchor_scales"])
    layers = (("conv1", [8, 3, 3, 3], 0.05), ("conv2", [8, 8, 3, 3], 0.2), (config["names"]["rpn_conv"], [8, 8, 3, 3], 0.2),
              ("rpn_cls_score", [2 * anchors, 8, 1, 1], 0.5), ("rpn_bbox_pred", [4 * anchors, 8, 1, 1], 0.1),
              ("fc6", [16, 72], 0.2), ("fc7", [16, 16], 0.4), ("cls_score", [3, 16], 0.4), ("bbox_pred", [12, 16], 0.1))
    draw = random.Random(seed)
    header, data = {"__metadata__": {"format": "frcnn", "frcnn": json.dumps(config)}}, b""
    for layer, shape, size in layers:
        for part, dims in (("weight", shape), ("bias", shape[:1])):
            count = 1
            for dim in dims:
                count *= dim
            values = array.array("f", (size * (2 * draw.random() - 1) for _ in range(count))).tobytes()
            header["%s.%s" % (layer, part)] = {"dtype": "F32", "shape": dims,
                                               "data_offsets": [len(data), len(data) + len(values)]}
            data += values
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
