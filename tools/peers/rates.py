"""What this machine reaches in PyTorch: a large matrix product of each type, and a copy. One line of JSON.

usage: rates.py DEVICE SIDE     matrices of SIDE x SIDE random numbers; the copy is of SIDE * SIDE * 16 bytes
"""
import json
import sys
import time

try:
    import torch
except ImportError as error:
    print(json.dumps({"absent": str(error)}))
    sys.exit(0)

device, side = sys.argv[1], int(sys.argv[2])
on_gpu = device != "cpu"
if on_gpu and not torch.cuda.is_available():
    print(json.dumps({"absent": "PyTorch %s finds no GPU" % torch.__version__}))
    sys.exit(0)


def seconds(function, warmup=3, rounds=10):
    """Of one call: the mean over rounds that follow each other."""
    for _ in range(warmup):
        function()
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        function()
    if on_gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / rounds


found = {"torch": torch.__version__, "side": side, "tflop_per_s": {}, "absent_types": {}}
for name, dtype, tf32 in (("fp32", torch.float32, False), ("tf32", torch.float32, True), ("fp16", torch.float16, False),
                          ("bf16", torch.bfloat16, False)):
    if tf32 and not on_gpu:
        found["absent_types"][name] = "a type of GPUs"
        continue
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.mm(a, b)
        found["tflop_per_s"][name] = 2 * side**3 / seconds(lambda: torch.mm(a, b, out=out)) / 1e12
    except RuntimeError as error:
        found["absent_types"][name] = str(error).splitlines()[0][:200]
source = torch.randn(side, 4 * side, device=device)
target = torch.empty_like(source)
found["copy_gb_per_s"] = 2 * source.numel() * 4 / seconds(lambda: target.copy_(source)) / 1e9
print(json.dumps(found))
