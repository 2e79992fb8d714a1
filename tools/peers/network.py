"""Faster R-CNN in torch.nn.functional and torchvision.ops, from a caffemodel and the configuration of our model file."""
import math

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

import caffemodel


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
    return torchvision.ops.nms(boxes + torch.tensor([0.0, 0, 1, 1]), scores, threshold)


def check(config):
    """This network has the official release's conventions only."""
    for key, only in (("anchor_rule", "caffe"), ("suppress", "above"), ("roi_op", "pool")):
        if config[key] != only:
            raise SystemExit("%s is %s; the peers only do %s" % (key, config[key], only))
    for layer in config["backbone"]:
        if layer["kind"] == "lrn" and layer["region"] != "within_channel":
            raise SystemExit("%s: LRN %s; the peers only do within_channel" % (layer["name"], layer["region"]))


class Detector:
    def __init__(self, config, path, low_precision=False):
        check(config)
        self.config = config
        self.low = low_precision
        self.mean = torch.tensor(config["pixel_mean"], dtype=torch.float32).view(1, 3, 1, 1)
        self.anchors = base_anchors(config)
        self.weights = {}
        for layer, blobs in caffemodel.read(path).items():
            self.weights[layer] = [torch.from_numpy(np.array(b)) for b in blobs]
            if low_precision:
                self.weights[layer] = [b.bfloat16() for b in self.weights[layer]]

    def conv(self, layer, x, **geometry):
        weight, bias = self.weights[layer]
        return F.conv2d(x, weight, bias, **geometry)

    def linear(self, layer, x):
        weight, bias = self.weights[layer]
        return F.linear(x, weight, bias)

    def backbone(self, x):
        for layer in self.config["backbone"]:
            if layer["kind"] == "conv":
                x = self.conv(layer["name"], x, stride=layer["stride"], padding=layer["pad"])
                if layer["relu"]:
                    x = F.relu_(x)
            elif layer["kind"] == "lrn":
                mean = F.avg_pool2d(x * x, layer["size"], 1, layer["size"] // 2, count_include_pad=True)
                x = x * (1 + layer["alpha"] * mean).pow(-layer["beta"])
            else:
                x = F.max_pool2d(x, layer["kernel"], layer["stride"], layer["pad"], ceil_mode=layer["rounding"] == "ceil")
        return x

    def proposals(self, features, height, width):
        c = self.config
        hidden = F.relu_(self.conv(c["names"]["rpn_conv"], features, padding=1))
        score, deltas = self.conv("rpn_cls_score", hidden).float(), self.conv("rpn_bbox_pred", hidden).float()
        count, rows, columns = len(self.anchors), score.shape[2], score.shape[3]
        foreground = score.view(2, count, rows, columns).softmax(0)[1]
        scores = foreground.permute(1, 2, 0).reshape(-1)
        deltas = deltas[0].view(count, 4, rows, columns).permute(2, 3, 0, 1).reshape(-1, 4)
        y, x = torch.meshgrid(torch.arange(rows) * c["feat_stride"], torch.arange(columns) * c["feat_stride"], indexing="ij")
        shifts = torch.stack([x, y, x, y], 2).view(-1, 1, 4)
        boxes = clip(decode((shifts + self.anchors).view(-1, 4), deltas), height, width)
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        large = (sides >= c["rpn_min_size"]).all(1).nonzero()[:, 0]
        boxes, scores = boxes[large], scores[large]
        scores, order = scores.topk(min(c["pre_nms_top_n"], len(scores)))
        boxes = boxes[order]
        kept = suppress(boxes, scores, c["rpn_nms"])[:c["post_nms_top_n"]]
        return boxes[kept], scores[kept]

    def head(self, features, rois):
        c = self.config
        regions = torch.cat([torch.zeros(len(rois), 1), rois], 1)
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
            rows.append(torch.cat([torch.full((len(best), 1), float(label)), scores[best, None], boxes[best]], 1))
        found = torch.cat(rows) if rows else torch.zeros(0, 6)
        if c["max_detections"] > 0 and len(found) > c["max_detections"]:
            found = found[found[:, 1] >= found[:, 1].topk(c["max_detections"]).values[-1]]
        return found

    @torch.inference_mode()
    def __call__(self, image):
        """image: uint8 [H,W,3], BGR, already of the network's input size. Returns proposals [n,5] = score, box and
        detections [m,6] = class, score, box."""
        height, width = image.shape[:2]
        data = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0).float() - self.mean
        if self.low:
            data = data.bfloat16()
        features = self.backbone(data)
        rois, scores = self.proposals(features, height, width)
        probability, deltas = self.head(features, rois)
        return torch.cat([scores[:, None], rois], 1), self.detections(rois, probability, deltas, height, width)
