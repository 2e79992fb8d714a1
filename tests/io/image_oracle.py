"""Writes image files of every kind into a folder, each with what cv2.imread makes of it.

usage: image_oracle.py FOLDER      prints one line per file: NAME TOLERANCE
FOLDER/NAME.raw holds int32 width, int32 height and the BGR bytes. Exit code 77: no OpenCV here.
"""
import os
import struct
import sys
import zlib

try:
    import cv2
    import numpy as np
except ImportError:
    sys.exit(77)

folder = sys.argv[1]
rng = np.random.RandomState(5)
y, x = np.mgrid[0:37, 0:53]
smooth = np.stack([x * 4, y * 6, (x + y) * 2], 2).astype(np.uint8)
noise = rng.randint(0, 256, (37, 53, 3)).astype(np.uint8)


def record(name, tolerance):
    image = cv2.imread(os.path.join(folder, name), cv2.IMREAD_COLOR)
    if image is None:
        sys.exit("cv2 cannot read its own " + name)
    with open(os.path.join(folder, name + ".raw"), "wb") as f:
        f.write(struct.pack("<ii", image.shape[1], image.shape[0]) + image.tobytes())
    print(name, tolerance)


def put(name, data, tolerance=0):
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)
    record(name, tolerance)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, colour, extra=b""):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = (width * channels * depth + 7) // 8
    raw = b"".join(b"\0" + rng.bytes(row) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
    for depth in depths:
        palette = chunk(b"PLTE", rng.bytes(3 * 2 ** depth)) if colour == 3 else b""
        put("png_c%d_d%d.png" % (colour, depth), png(19, 11, depth, colour, palette))
        if colour == 3:
            put("png_c3_d%d_trns.png" % depth, png(19, 11, depth, 3, palette + chunk(b"tRNS", rng.bytes(2 ** depth))))
put("png_trns_rgb.png", png(9, 7, 8, 2, chunk(b"tRNS", struct.pack(">HHH", 10, 20, 30))))
put("png_1x1.png", png(1, 1, 8, 2))
put("png_1x50.png", png(1, 50, 8, 6))


def tiff(orientation, order):
    return ((b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, 1) +
            struct.pack(order + "HHIHH", 0x112, 3, 1, orientation, 0) + struct.pack(order + "I", 0))


def jpeg(image, *options):
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95] + list(options))[1].tobytes()


# Decoders may differ by 3 levels (chroma upsampling and the inverse transform).
put("jpeg_smooth.jpg", jpeg(smooth), 3)
put("jpeg_noise_grey.jpg", jpeg(noise[:, :, 0]), 3)
put("jpeg_progressive.jpg", jpeg(smooth, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), 3)
put("jpeg_1x1.jpg", jpeg(smooth[:1, :1]), 3)
put("jpeg_restart.jpg", jpeg(smooth, cv2.IMWRITE_JPEG_RST_INTERVAL, 2), 3)
plain = jpeg(smooth)
for orientation in range(10):
    order = "<>"[orientation % 2]
    body = b"Exif\0\0" + tiff(orientation, order)
    put("jpeg_o%d.jpg" % orientation, plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:], 3)
    put("png_o%d.png" % orientation, png(13, 8, 8, 2, chunk(b"eXIf", tiff(orientation, order))))

corpus = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fuzz", "corpus", "image")
for name in ("cmyk.jpg", "ycck.jpg"):                             # made with libjpeg; cv2 writes no such files
    with open(os.path.join(corpus, name), "rb") as f:
        put(name, f.read(), 3)

for name, image in (("bmp_24.bmp", noise), ("bmp_grey.bmp", noise[:, :, 0]), ("bmp_32.bmp", np.dstack([noise, noise[:, :, :1]]))):
    put(name, cv2.imencode(".bmp", image)[1].tobytes())
