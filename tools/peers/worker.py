"""One peer in a process of its own: says what it found, then times one image for every line that it reads.

usage: worker.py torch-MODE|opencv CONFIG.json MODEL MODEL.prototxt IMAGE.png THREADS FOUND.json [DEVICE]
MODE is one of network.py's, MODEL a caffemodel or for PyTorch our own file, DEVICE cpu or PyTorch's cuda. Prints `ready
NAME AND VERSION`, then per empty line of standard input the milliseconds of one image, from its pixels in memory to its
boxes in memory, and per line `layers` one line of JSON: milliseconds of each layer that multiplies, alone. When it cannot
take part here it prints `absent WHY`.
"""
import json
import sys
import time

import picture as pictures


def blas_of(torch):
    """The library that multiplies PyTorch's matrices. NumPy's own is loaded as well, so the first look is at PyTorch."""
    if torch.backends.mkl.is_available():
        return "MKL"
    with open("/proc/self/maps") as maps:
        return "OpenBLAS" if "/libopenblas" in maps.read() else "another BLAS"


def torch_peer(config, weights, prototxt, threads, mode, device):
    import torch
    import torchvision
    import layer_times
    from network import MODES, Absent, Detector
    torch.set_num_threads(threads)
    try:
        detector = Detector(config, weights, MODES[mode], device)
    except Absent as error:
        raise ImportError(error)

    def run(image):
        proposals, found = detector(image)
        return proposals.tolist(), found.tolist()
    name = "PyTorch %s, torchvision %s, %s" % (
        torch.__version__, torchvision.__version__,
        "CUDA %s, cuDNN %s" % (torch.version.cuda, torch.backends.cudnn.version()) if device != "cpu" else blas_of(torch))
    return name, run, lambda image: layer_times.measure(detector, image)


def opencv_peer(config, weights, prototxt, threads, mode, device):
    import cv2
    import numpy as np
    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromCaffe(prototxt, weights)
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)

    def run(image):
        height, width = image.shape[:2]
        net.setInput(cv2.dnn.blobFromImage(image, 1.0, (width, height), tuple(config["pixel_mean"])), "data")
        net.setInput(np.array([[height, width, 1]], "float32"), "im_info")
        found, rois = net.forward(["detection_out", "proposal"])
        # Proposals come without their scores; rows of zeros fill up what was not found.
        return ([[None] + row[1:].tolist() for row in rois.reshape(-1, 5)],
                [row[1:].tolist() for row in found.reshape(-1, 7) if row[2] > 0])
    return "OpenCV %s DNN" % cv2.__version__, run, None


def main():
    kind, config, weights, prototxt, image, threads, out = sys.argv[1:8]
    device = sys.argv[8] if len(sys.argv) > 8 else "cpu"
    with open(config) as file:
        config = json.load(file)
    kind, _, mode = kind.partition("-")
    make = opencv_peer if kind == "opencv" else torch_peer
    try:
        name, run, layers = make(config, weights, prototxt, int(threads), mode, device)
    except ImportError as error:
        print("absent", " ".join(str(error).split()), flush=True)
        return
    picture = pictures.read(image)
    proposals, found = run(picture)
    with open(out, "w") as file:
        json.dump({"proposals": proposals, "detections": found}, file)
    print("ready", name, flush=True)
    for line in sys.stdin:
        if line.strip() == "layers":
            print(json.dumps(layers(picture)), flush=True)
            continue
        start = time.perf_counter()
        run(picture)
        print((time.perf_counter() - start) * 1000, flush=True)


main()
