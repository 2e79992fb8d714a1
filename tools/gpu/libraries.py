"""cuDNN and cuBLASLt for `frcnn --algo cudnn`: where PyTorch's wheels have them, if nobody names others."""
import glob
import os
import subprocess

from .machine import ANSWER_SECONDS

FILES = {"FRCNN_CUDNN": ("libcudnn.so.9",), "FRCNN_CUBLASLT": ("libcublasLt.so.13", "libcublasLt.so.12")}
NOT_HERE = "was not found"     # in what frcnn says of a library that the machine does not have


def environment(python):
    """For frcnn; what is not found there it looks for itself, where the system has its libraries."""
    result = dict(os.environ)
    try:
        answer = subprocess.run([python, "-c", "import sys; print('\\n'.join(sys.path))"], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True, timeout=ANSWER_SECONDS).stdout
    except (OSError, subprocess.TimeoutExpired):
        answer = ""
    for variable, names in FILES.items():
        found = [file for path in answer.splitlines() if path for name in names
                 for file in sorted(glob.glob(os.path.join(glob.escape(path), "nvidia", "*", "lib", name)))]
        if found and not result.get(variable):
            result[variable] = found[0]
    return result
