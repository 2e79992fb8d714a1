"""Pictures, by whichever library this Python has: OpenCV or Pillow.

usage: picture.py SOURCE HEIGHT WIDTH TO.png     resized; exit code 77: neither library is here
"""
import sys


def read(path):
    """uint8 [H,W,3] BGR."""
    import numpy as np
    try:
        import cv2
        return np.ascontiguousarray(cv2.imread(path))
    except ImportError:
        from PIL import Image
        return np.ascontiguousarray(np.array(Image.open(path).convert("RGB"))[:, :, ::-1])


def resize(source, height, width, to):
    try:
        import cv2
        picture = cv2.imread(source)
        if picture is None:
            sys.exit("cannot read " + source)
        cv2.imwrite(to, cv2.resize(picture, (width, height)))
        return
    except ImportError:
        pass
    try:
        from PIL import Image
    except ImportError as error:
        print("neither OpenCV nor Pillow is here to resize the picture with (%s)" % error, file=sys.stderr)
        sys.exit(77)
    Image.open(source).convert("RGB").resize((width, height), Image.BILINEAR).save(to)


if __name__ == "__main__":
    resize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
