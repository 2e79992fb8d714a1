"""Runs an exported network in OpenCV's DNN module on a dump's input and compares layers with the dump.

usage: opencv_net.py PROTOTXT CAFFEMODEL DUMP TOP...    prints per top: NAME ELEMENTS LARGEST_DIFFERENCE LARGEST_VALUE
Last line: detections ROWS. Exit code 77: no OpenCV here.
"""
import json
import struct
import sys

try:
    import cv2
    import numpy as np
except ImportError:
    sys.exit(77)


def tensors(path):
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header, body = json.loads(f.read(size)), f.read()
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            yield name, np.frombuffer(body[start:end], "<f4").reshape(entry["shape"])


prototxt, caffemodel, dump, tops = sys.argv[1], sys.argv[2], dict(tensors(sys.argv[3])), sys.argv[4:]
net = cv2.dnn.readNetFromCaffe(prototxt, caffemodel)
layers = net.getLayerNames()
net.setInput(dump["data"], "data")
net.setInput(dump["im_info"].reshape(1, 3), "im_info")
for top in tops:
    # OpenCV knows tops by the last layer that writes them; in-place layers follow at once.
    layer = top
    after = layers.index(top) + 1
    if net.getLayer(net.getLayerId(layers[after])).type == "ReLU":
        layer = layers[after]
    got = net.forward(layer)
    want = dump[top]
    if got.shape != want.shape:
        sys.exit("%s: OpenCV has %s, the dump %s" % (top, got.shape, want.shape))
    print(top, got.size, float(np.abs(got - want).max()), float(np.abs(want).max()))
print("detections", net.forward("detection_out").shape[2])
