"""One peer in a process of its own: says what it found, then times one image for every line that it reads.

usage: worker.py torch|torch-bf16|opencv CONFIG.json MODEL.caffemodel MODEL.prototxt IMAGE.png THREADS FOUND.json
Prints `ready NAME AND VERSION`, then per line of standard input the milliseconds of one image, from its pixels in
memory to its boxes in memory. Exit code 77: not here.
"""
import json
import sys
import time


def read_image(path):
    """uint8 [H,W,3] BGR, by whichever library this Python has."""
    import numpy as np
    try:
        import cv2
        return np.ascontiguousarray(cv2.imread(path))
    except ImportError:
        from PIL import Image
        return np.ascontiguousarray(np.array(Image.open(path).convert("RGB"))[:, :, ::-1])


def blas_of(torch):
    """The library that multiplies PyTorch's matrices. NumPy's own is loaded as well, so the first look is at PyTorch."""
    if torch.backends.mkl.is_available():
        return "MKL"
    with open("/proc/self/maps") as maps:
        return "OpenBLAS" if "/libopenblas" in maps.read() else "another BLAS"


def torch_peer(config, weights, prototxt, threads, low):
    import torch
    import torchvision
    from network import Detector
    torch.set_num_threads(threads)
    detector = Detector(config, weights, low)

    def run(image):
        proposals, found = detector(image)
        return proposals.tolist(), found.tolist()
    name = "PyTorch %s, torchvision %s, %s" % (torch.__version__, torchvision.__version__, blas_of(torch))
    return name, run


def opencv_peer(config, weights, prototxt, threads, _):
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
    return "OpenCV %s DNN" % cv2.__version__, run


def main():
    kind, config, weights, prototxt, image, threads, out = sys.argv[1:]
    with open(config) as file:
        config = json.load(file)
    make = opencv_peer if kind == "opencv" else torch_peer
    try:
        name, run = make(config, weights, prototxt, int(threads), kind == "torch-bf16")
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(77)
    picture = read_image(image)
    proposals, found = run(picture)
    with open(out, "w") as file:
        json.dump({"proposals": proposals, "detections": found}, file)
    print("ready", name, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run(picture)
        print((time.perf_counter() - start) * 1000, flush=True)


main()
