"""Network inputs of raw BGR images as the published release makes them, by OpenCV itself.

usage: resize_with_cv2.py FOLDER
Line i of FOLDER/cases is "batch height width scale mean_b mean_g mean_r"; FOLDER/in<i> holds the batch's bytes, and
FOLDER/out<i> gets the float32 values.
"""
import os
import sys

import cv2
import numpy as np

folder = sys.argv[1]
for i, line in enumerate(open(os.path.join(folder, "cases"))):
    batch, height, width = (int(a) for a in line.split()[:3])
    scale, *mean = (float(a) for a in line.split()[3:])
    images = np.fromfile(os.path.join(folder, "in%d" % i), np.uint8).reshape(batch, height, width, 3)
    with open(os.path.join(folder, "out%d" % i), "wb") as out:
        for image in images:
            blob = image.astype(np.float32)
            blob -= np.array([[mean]])
            cv2.resize(blob, None, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR).tofile(out)
