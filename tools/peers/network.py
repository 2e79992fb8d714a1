"""Faster R-CNN in torch.nn.functional and torchvision.ops, from our weights and the configuration of our model file."""
import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

import model_file


class Absent(Exception):
    """A mode that this machine or this PyTorch does not have."""


@dataclasses.dataclass
class Mode:
    """How PyTorch computes the network. The proposal stage is eager and in float32 in all of them."""
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    tuned: bool = False       # channels_last, and on a GPU cudnn.benchmark
    fused: bool = False       # cudnn_convolution_relu
    compiled: bool = False    # torch.compile of the maps (backbone and RPN) and of the head
    graphed: bool = False     # one CUDA graph of the maps and one of the head


MODES = {
    "fp32": Mode(),
    "tf32": Mode(tf32=True),
    "bf16": Mode(torch.bfloat16),
    "bf16-tuned": Mode(torch.bfloat16, tuned=True),
    "half": Mode(torch.float16, tuned=True),
    "half-fused": Mode(torch.float16, tuned=True, fused=True),
    "half-compiled": Mode(torch.float16, tuned=True, compiled=True),
    "half-graphed": Mode(torch.float16, tuned=True, graphed=True),
}


def use(mode, device):
    """Sets PyTorch up for the mode; Absent where it cannot be."""
    on_gpu = device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise Absent("PyTorch %s finds no GPU" % torch.__version__)
    if not on_gpu and (mode.tf32 or mode.fused or mode.graphed or mode.dtype == torch.float16):
        raise Absent("a mode for a GPU")
    if mode.fused and not hasattr(torch, "cudnn_convolution_relu"):
        raise Absent("PyTorch %s has no cudnn_convolution_relu" % torch.__version__)
    if mode.compiled and not hasattr(torch, "compile"):
        raise Absent("PyTorch %s has no torch.compile" % torch.__version__)
    if on_gpu:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = mode.tf32
        torch.backends.cudnn.benchmark = mode.tuned


class Graphed:
    """A function of tensors of fixed shapes as one CUDA graph; its results are overwritten by the next call."""

    def __init__(self, function, inputs):
        self.inputs = [x.clone() for x in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):     # libraries choose and allocate before the capture
            for _ in range(3):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = function(*self.inputs)

    def __call__(self, *inputs):
        for kept, given in zip(self.inputs, inputs):
            kept.copy_(given)
        self.graph.replay()
        return self.outputs


def base_anchors(config):
    """Ratio-major, scale-minor, rounded as the official release rounds them."""
    size = config["anchor_base_size"]
    centre = (size - 1) / 2
    anchors = []
    for ratio in config["anchor_ratios"]:
        width = np.round(math.sqrt(size * size / ratio))
        height = np.round(width * ratio)
        for scale in config["anchor_scales"]:
            w, h = (width * scale - 1) / 2, (height * scale - 1) / 2
            anchors.append([centre - w, centre - h, centre + w, centre + h])
    return torch.tensor(anchors, dtype=torch.float32)


def decode(boxes, deltas):
    """Boxes [n,4] moved by deltas [n,4]; widths count both corners."""
    width, height = boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
    x = boxes[:, 0] + 0.5 * width + deltas[:, 0] * width
    y = boxes[:, 1] + 0.5 * height + deltas[:, 1] * height
    half_width, half_height = 0.5 * torch.exp(deltas[:, 2]) * width, 0.5 * torch.exp(deltas[:, 3]) * height
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1)


def clip(boxes, height, width):
    boxes[:, 0::2].clamp_(0, width - 1)
    boxes[:, 1::2].clamp_(0, height - 1)
    return boxes


def suppress(boxes, scores, threshold):
    """torchvision measures widths as x2 - x1; moving the far corners by 1 makes them the inclusive boxes' widths."""
    return torchvision.ops.nms(boxes + torch.tensor([0.0, 0, 1, 1], device=boxes.device), scores, threshold)


def check(config):
    """This network has the official release's conventions only."""
    for key, only in (("anchor_rule", "caffe"), ("suppress", "above"), ("roi_op", "pool")):
        if config[key] != only:
            raise SystemExit("%s is %s; the peers only do %s" % (key, config[key], only))
    for layer in config["backbone"]:
        if layer["kind"] == "lrn" and layer["region"] != "within_channel":
            raise SystemExit("%s: LRN %s; the peers only do within_channel" % (layer["name"], layer["region"]))


class Detector:
    def __init__(self, config, path, mode=Mode(), device="cpu"):
        check(config)
        use(mode, device)
        self.config, self.mode, self.device = config, mode, device
        self.low = mode.dtype != torch.float32
        self.mean = torch.tensor(config["pixel_mean"], dtype=torch.float32, device=device).view(1, 3, 1, 1)
        self.anchors = base_anchors(config).to(device)
        self.weights = {}
        for layer, blobs in model_file.read(path).items():
            self.weights[layer] = [self.prepared(torch.from_numpy(np.array(b))) for b in blobs]
        self.seen = None     # a list: every layer that multiplies is added, with what it is given
        if mode.compiled:
            self.maps, self.tail = torch.compile(self.maps), torch.compile(self.tail)
        self.graphs = {}

    def prepared(self, weight):
        weight = weight.to(self.device, self.mode.dtype)
        return weight.contiguous(memory_format=torch.channels_last) if self.mode.tuned and weight.dim() == 4 else weight

    def call(self, name, function, *inputs):
        if not self.mode.graphed or self.seen is not None:
            return function(*inputs)
        key = name, tuple(x.shape for x in inputs)
        if key not in self.graphs:
            self.graphs[key] = Graphed(function, inputs)
        return self.graphs[key](*inputs)

    def conv(self, layer, x, relu=False, stride=1, padding=0):
        weight, bias = self.weights[layer]
        if self.seen is not None:
            self.seen.append((layer, "conv2d", x, (stride, padding)))
        if self.mode.fused and relu:
            return torch.cudnn_convolution_relu(x, weight, bias, [stride] * 2, [padding] * 2, [1, 1], 1)
        x = F.conv2d(x, weight, bias, stride=stride, padding=padding)
        return F.relu_(x) if relu else x

    def linear(self, layer, x):
        weight, bias = self.weights[layer]
        if self.seen is not None:
            self.seen.append((layer, "mm", x, None))
        return F.linear(x, weight, bias)

    def backbone(self, x):
        for layer in self.config["backbone"]:
            if layer["kind"] == "conv":
                x = self.conv(layer["name"], x, layer["relu"], layer["stride"], layer["pad"])
            elif layer["kind"] == "lrn":
                mean = F.avg_pool2d(x * x, layer["size"], 1, layer["size"] // 2, count_include_pad=True)
                x = x * (1 + layer["alpha"] * mean).pow(-layer["beta"])
            else:
                x = F.max_pool2d(x, layer["kernel"], layer["stride"], layer["pad"], ceil_mode=layer["rounding"] == "ceil")
        return x

    def maps(self, data):
        """Features, scores and deltas of the RPN."""
        features = self.backbone(data)
        hidden = self.conv(self.config["names"]["rpn_conv"], features, True, padding=1)
        return features, self.conv("rpn_cls_score", hidden).float(), self.conv("rpn_bbox_pred", hidden).float()

    def proposals(self, score, deltas, height, width):
        c = self.config
        count, rows, columns = len(self.anchors), score.shape[2], score.shape[3]
        foreground = score.reshape(2, count, rows, columns).softmax(0)[1]
        scores = foreground.permute(1, 2, 0).reshape(-1)
        deltas = deltas[0].reshape(count, 4, rows, columns).permute(2, 3, 0, 1).reshape(-1, 4)
        y, x = torch.meshgrid(torch.arange(rows, device=self.device) * c["feat_stride"],
                              torch.arange(columns, device=self.device) * c["feat_stride"], indexing="ij")
        shifts = torch.stack([x, y, x, y], 2).view(-1, 1, 4)
        boxes = clip(decode((shifts + self.anchors).view(-1, 4), deltas), height, width)
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        large = (sides >= c["rpn_min_size"]).all(1).nonzero()[:, 0]
        boxes, scores = boxes[large], scores[large]
        scores, order = scores.topk(min(c["pre_nms_top_n"], len(scores)))
        boxes = boxes[order]
        kept = suppress(boxes, scores, c["rpn_nms"])[:c["post_nms_top_n"]]
        return boxes[kept], scores[kept]

    def tail(self, features, rois):
        """Probabilities and deltas of each RoI."""
        c = self.config
        regions = torch.cat([torch.zeros(len(rois), 1, device=rois.device), rois], 1)
        pooled = torchvision.ops.roi_pool(features.float() if self.low else features, regions, (c["pooled_h"], c["pooled_w"]),
                                          c["spatial_scale"])
        x = pooled.to(features.dtype).flatten(1)
        for layer in ("fc6", "fc7"):
            x = F.relu_(self.linear(layer, x))
            if c["dropout_test_scale"] != 1:
                x = x * c["dropout_test_scale"]
        return self.linear("cls_score", x).float().softmax(1), self.linear("bbox_pred", x).float()

    def detections(self, rois, probability, deltas, height, width):
        c = self.config
        rows = []
        for label in range(1, probability.shape[1]):
            keep = (probability[:, label] > c["score_threshold"]).nonzero()[:, 0]
            if not len(keep):
                continue
            boxes = clip(decode(rois[keep], deltas[keep, 4 * label:4 * label + 4]), height, width)
            scores = probability[keep, label]
            best = suppress(boxes, scores, c["nms"])
            labels = torch.full((len(best), 1), float(label), device=boxes.device)
            rows.append(torch.cat([labels, scores[best, None], boxes[best]], 1))
        found = torch.cat(rows) if rows else torch.zeros(0, 6, device=self.device)
        if c["max_detections"] > 0 and len(found) > c["max_detections"]:
            found = found[found[:, 1] >= found[:, 1].topk(c["max_detections"]).values[-1]]
        return found

    @torch.inference_mode()
    def __call__(self, image):
        """image: uint8 [H,W,3], BGR, already of the network's input size. Returns proposals [n,5] = score, box and
        detections [m,6] = class, score, box."""
        height, width = image.shape[:2]
        data = torch.from_numpy(image).to(self.device).permute(2, 0, 1).unsqueeze(0).float() - self.mean
        if self.device != "cpu" and not self.mode.tuned:
            data = data.contiguous()     # the view of the pixels is channels_last as it is
        if self.low:
            data = data.to(self.mode.dtype)
        features, score, deltas = self.call("maps", self.maps, data)
        rois, scores = self.proposals(score, deltas, height, width)
        probability, deltas = self.call("tail", self.tail, features, rois)
        return torch.cat([scores[:, None], rois], 1), self.detections(rois, probability, deltas, height, width)

    def layers(self, image):
        """(layer, conv2d or mm, input, geometry) of all that multiplies, for this image."""
        self.seen = []
        try:
            self(image)
            return self.seen
        finally:
            self.seen = None
