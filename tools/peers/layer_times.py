"""Layers that multiply, each alone in PyTorch: conv2d is cuDNN's on a GPU, mm cuBLAS's."""
import time

import torch
import torch.nn.functional as F

CACHES = 192 << 20      # bytes of inputs and weights to go through before the first ones come again; an L2 has 60 MB
ROUNDS = 5


def bytes_of(*tensors):
    return sum(x.numel() * x.element_size() for x in tensors)


def calls_of(detector, layer, op, x, geometry, copies):
    """As many calls, each on memory of its own."""
    weight, bias = detector.weights[layer]
    calls = []
    for i in range(copies):
        a, w = (x, weight) if i == 0 else (x.clone(), weight.clone())
        if op == "conv2d":
            calls.append(lambda a=a, w=w: F.conv2d(a, w, bias, stride=geometry[0], padding=geometry[1]))
        else:
            calls.append(lambda a=a, w=w: torch.mm(a, w.t()))
    return calls


def milliseconds(calls, on_gpu):
    """The median of some rounds over all calls. On a GPU they are one CUDA graph, where PyTorch can capture them:
    starting small ones takes longer than they do."""
    def all_calls():
        for call in calls:
            call()

    def synchronize():
        if on_gpu:
            torch.cuda.synchronize()
    all_calls()
    synchronize()
    run, captured = all_calls, False
    if on_gpu:
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                all_calls()
            run, captured = graph.replay, True
        except RuntimeError:
            torch.cuda.synchronize()
    samples = []
    for _ in range(1 + ROUNDS):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        samples.append((time.perf_counter() - start) * 1000 / len(calls))
    return sorted(samples[1:])[ROUNDS // 2], captured


@torch.inference_mode()
def measure(detector, image):
    """[{layer, op, ms, calls, captured}], of this picture's activations."""
    on_gpu = detector.device != "cpu"
    table = []
    for layer, op, x, geometry in detector.layers(image):
        weight = detector.weights[layer][0]
        copies = 1
        if on_gpu:     # at least so many that waiting for the last one is a small part
            copies = max(20, -(-CACHES // bytes_of(x, weight)))
            copies = max(1, min(copies, (8 << 30) // bytes_of(x, weight)))
        ms, captured = milliseconds(calls_of(detector, layer, op, x, geometry, copies), on_gpu)
        table.append({"layer": layer, "op": op, "ms": ms, "calls": copies, "captured": captured})
    return table
