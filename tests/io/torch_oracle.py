"""Writes checkpoints of every kind with torch.save into a folder, each with what torch.load makes of it.

usage: torch_oracle.py FOLDER      prints one line per file: NAME, or NAME refused
FOLDER/NAME.safetensors holds the state dict's floating-point tensors. Exit code 77: no PyTorch here.
"""
import json
import os
import struct
import sys
from collections import OrderedDict

try:
    import numpy as np
    import torch
except ImportError:
    sys.exit(77)

folder = sys.argv[1]
torch.manual_seed(5)
TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}


def write_safetensors(path, tensors):
    header, body = {}, b""
    for name, tensor in tensors.items():
        data = tensor.detach().contiguous().view(-1)
        raw = data.view(torch.int16) if tensor.dtype == torch.bfloat16 else data
        raw = raw.numpy().tobytes()
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + body)


def record(name, state, obj=None, **how):
    path = os.path.join(folder, name)
    torch.save(state if obj is None else obj, path, **how)
    tensors = OrderedDict((k, v) for k, v in state.items() if isinstance(v, torch.Tensor) and v.dtype in TYPES)
    write_safetensors(path + ".safetensors", tensors)
    print(name)


def network():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Linear(5, 2))


base = torch.randn(6, 8)
strided = OrderedDict([
    ("plain", torch.randn(3, 4)), ("transposed", base.t()), ("slice", base[1:5, 2:7]), ("steps", base[::2, ::3]),
    ("row", base[3]), ("expanded", torch.randn(1, 5).expand(4, 5)), ("permuted", torch.randn(2, 3, 4).permute(2, 0, 1)),
    ("channels_last", torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)), ("scalar", torch.tensor(2.5)),
    ("empty", torch.zeros(0, 3)), ("same", base), ("parameter", torch.nn.Parameter(torch.randn(7)))])
types = OrderedDict((str(t)[6:], torch.randn(3, 5).to(t)) for t in TYPES)
types["whole"] = torch.arange(4)
types["truth"] = torch.tensor([True, False])
net = network()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
net(torch.randn(1, 3, 5, 7)).sum().backward()
optimizer.step()

for zip_form in (True, False):
    form = "zip" if zip_form else "legacy"
    for protocol in (2, 3, 4, 5):
        how = {"_use_new_zipfile_serialization": zip_form, "pickle_protocol": protocol}
        mark = "%s_p%d" % (form, protocol)
        record("strided_%s.pth" % mark, strided, **how)
        record("types_%s.pth" % mark, types, **how)
        record("module_%s.pth" % mark, net.state_dict(), **how)
        checkpoint = {"session": 1, "epoch": 3, "model": net.state_dict(), "optimizer": optimizer.state_dict(),
                      "best": 0.25, "big": 1 << 70, "none": None, "names": ("a", [1, 2.5, True]), "device": torch.device("cpu"),
                      "size": torch.Size([1, 2]), "dtype": torch.float16}
        record("checkpoint_%s.pth" % mark, net.state_dict(), checkpoint, **how)
    how = {"_use_new_zipfile_serialization": zip_form}
    parallel = OrderedDict(("module." + k, v) for k, v in net.state_dict().items())
    path = os.path.join(folder, "parallel_%s.pth" % form)
    torch.save({"state_dict": parallel}, path, **how)
    write_safetensors(path + ".safetensors", OrderedDict((k, v) for k, v in net.state_dict().items() if v.dtype in TYPES))
    print(os.path.basename(path))
    for name, obj in (("whole_module", net), ("numpy", {"model": net.state_dict(), "best": np.float64(1)}), ("text", {"a": "b"})):
        torch.save(obj, os.path.join(folder, "%s_%s.pth" % (name, form)), **how)
        print("%s_%s.pth refused" % (name, form))
