// The closed set of operations: one plain attribute struct each. Adding one is described in
// docs/adding_an_op.md; the compiler lists every place that was forgotten.
//
// Layout everywhere: NHWC, packed. Weights keep the published order (OIHW, OI) in the model; each device
// packs its own copy. Boxes are inclusive corners x1,y1,x2,y2 (width = x2 - x1 + 1).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "graph/tensor.h"

namespace frcnn {

// What a convolution or a fully connected layer does to its sums before storing them, in this order.
struct Epilogue {
  bool relu = false;
  float scale = 1.0f;
  bool max_pool_2x2 = false;  // convolution: stores the MaxPool{2, 2, 0, ceil} of its map instead of the map
  bool operator==(const Epilogue&) const = default;
};

enum class Rounding { ceil, floor };  // of a pooling's output size
enum class LrnRegion { within_channel, across_channels };
enum class Suppress { above, at_or_above };  // a box falls when its IoU is > or >= the threshold

// How 8-bit source pixels are stored. nv12: a plane of luma, then a plane of interleaved U, V, one pair for
// 2x2 pixels, BT.601 limited range (docs/numerics.md states the formula).
enum class PixelFormat : std::uint8_t { bgr, rgb, nv12 };

// Where the pixels of one image lie and what becomes of them: a record of a Preprocess's first input, written
// by the host before each run. bgr and rgb have rows of 3 `width` bytes; nv12 has rows of `width` bytes of
// luma, and behind `chroma` ceil(height/2) rows of ceil(width/2) pairs. Rows are any distance apart,
// backwards too; what lies between them is not looked at.
struct SourceImage {
  // Of the top left pixel and pair: addresses in the memory of the device, or, where the node has its pixels
  // as a second input, bytes from that input's start.
  std::uint64_t data = 0, chroma = 0;
  std::int64_t row_bytes = 0, chroma_row_bytes = 0;  // from a row to the one below it
  double inverse_scale = 1.0;                        // original pixels per network pixel
  std::int32_t height = 0, width = 0;                // of the original
  std::int32_t out_height = 0, out_width = 0;        // of what it becomes, without padding
  PixelFormat format = PixelFormat::bgr;
  std::uint8_t unused[7] = {};
  bool operator==(const SourceImage&) const = default;
};
static_assert(sizeof(SourceImage) == 64);

// Images to network input (SPEC: 8-bit BGR, subtract the mean in double, then resize as cv2.resize does on
// float32), each at the top left of a blob that is zero where an image ends. in: images u8 [N,64], one
// SourceImage each; and optionally pixels u8, any shape, that they point into. What they say is data, so that
// one plan serves originals of every size and format that fit the blob.
// out: data f32 [N,height,width,3] in the order B, G, R.
struct Preprocess {
  std::array<double, 3> mean_bgr{};
  std::int64_t height = 0, width = 0;
};

// Cross-correlation with zero padding. in: src [N,H,W,I], weight [O,I,KH,KW], bias [O].  out: [N,H',W',O],
// H' = floor((H + 2 pad - KH) / stride) + 1.
struct Conv2d {
  int stride = 1;
  int pad = 0;
  Epilogue epilogue;
  DType operands = DType::f32;  // bf16: f32 maps and weights are rounded to it before they are multiplied
};

struct Relu {};  // in: src, any shape.  out: the same shape

struct Scale {  // dst = factor * src, any shape
  float factor = 1.0f;
};

// Caffe's rule: out = round((in + 2 pad - kernel) / stride) + 1, less one if pad > 0 and the last window
// would start in the padding. Windows are clipped to the map; the first maximum wins.
struct MaxPool {
  int kernel = 2;
  int stride = 2;
  int pad = 0;
  Rounding rounding = Rounding::ceil;
  bool save_argmax =
      false;  // a second output, u8 of the same shape: row * kernel + column of the window's maximum
};

// within_channel: x (1 + alpha/size^2 sum_window x^2)^-beta, zero padded, always divided by size^2; k unused.
// across_channels: x (k + alpha/size sum_channels x^2)^-beta.
struct Lrn {
  LrnRegion region = LrnRegion::within_channel;
  int size = 3;
  float alpha = 5e-5f;
  float beta = 0.75f;
  float k = 1.0f;
};

// in: src [R,I] or [R,H,W,C], weight [O,I], bias [O].  out: [R,O]. For a rank-4 source the weight's columns
// are in the published C,H,W order; packing moves them to H,W,C.
struct Linear {
  Epilogue epilogue;
};

// Softmax over the channels {g, g+groups, g+2 groups, ...} for each g of the last dimension: groups = anchors
// for RPN scores (background in the first `groups` channels), 1 for class scores.
struct Softmax {
  int groups = 1;
};

// In a batch of images of different sizes maps are as large as the largest needs them. An optional last input
// of the ops that look beyond single cells of a map, map_sizes i32 [N,4], says how much of them is an image's
// own, as large as its maps would be if it were alone: rows and columns of the features' map, then of the
// RPN's. What lies behind is padding. Without that input all is everybody's own.

// Anchors, decoding, clipping and the minimum-size filter of the proposal layer, for every (h, w, a), a
// fastest. in: prob [N,H,W,2A], deltas [N,H,W,4A], im_info [N,3] = height, width, scale, and optionally
// map_sizes: anchors of cells in the padding are filtered out. out: boxes [N,HWA,4]
// in pixels of the resized image, scores [N,HWA] (minus infinity where filtered out),
//      nonfinite i32 [1]: 0, or 1 when a score or delta is NaN or infinite.
struct DecodeProposals {
  std::vector<std::array<float, 4>> base_anchors;  // A of them, around cell (0,0)
  float feat_stride = 16.0f;
  float min_size = 16.0f;  // pixels of the original image; multiplied by the scale
};

// The k best by score, descending, equal scores by ascending index; filtered entries never appear.
// in: boxes [N,M,4], scores [N,M].  out: boxes [N,K,4], scores [N,K], count i32 [N]; K = min(k, M), or M if k
// <= 0. Rows from count on are zero.
struct TopK {
  std::int64_t k = 6000;
};

// Greedy suppression of boxes that are sorted by score, stopping at max_out survivors per image.
// in: boxes [N,K,4], scores [N,K], count i32 [N].
// out: rois [N*max_out,5] = image index, x1,y1,x2,y2; roi_scores [N*max_out]; count i32 [N]. Rows of image n
// start at n*max_out; those from its count on are zero but for the image index.
struct Nms {
  float threshold = 0.7f;
  Suppress suppress = Suppress::above;
  std::int64_t max_out = 300;
};

// Caffe's RoI max pooling (coordinates rounded half away from zero, bins by IEEE division, empty bins give
// 0). in: features [N,H,W,C], rois [R,5], and without save_argmax optionally map_sizes: bins are clipped to the
// image's own cells.  out: [R,pooled_h,pooled_w,C].
struct RoiPool {
  int pooled_h = 7;
  int pooled_w = 7;
  float spatial_scale = 0.0625f;
  bool save_argmax =
      false;  // a second output, i32 of the same shape: row * W + column of the maximum; -1: none
};

// Mean of bilinear samples. sampling_ratio 0 takes ceil(roi size / pooled size) samples per bin and
// direction. aligned shifts by half a cell and lets boxes shrink below one cell. in and out: as of RoiPool.
struct RoiAlign {
  int pooled_h = 7;
  int pooled_w = 7;
  float spatial_scale = 0.0625f;
  int sampling_ratio = 0;
  bool aligned = false;
};

// Boxes of every class in original pixels: rois / scale, decoded, clipped to the original image.
// in: rois [N*M,5], bbox_pred [N*M,4C] (C classes with background, or 1 for class-agnostic heads), im_info
// [N,3], image_size [N,2] = height, width of the original.  out: pred_boxes [N*M,4C].
struct DecodeBoxes {};

// Score threshold, suppression within each class, and the cap on detections per image.
// in: cls_prob [N*M,C], pred_boxes [N*M,4C] or [N*M,4], count i32 [N] (valid rois of each image).
// out: detections [N,D,6] = class, score, x1,y1,x2,y2, classes ascending, scores descending (ties: lower roi
// first);
//      count i32 [N]; nonfinite i32 [1] as in DecodeProposals. D = M*(C-1) where ties at the cap are kept.
struct SelectDetections {
  float score_threshold = 0.05f;  // strict: score > threshold
  float nms_threshold = 0.3f;
  Suppress suppress = Suppress::above;
  std::int64_t max_detections = 100;  // per image over all classes; <= 0: no cap
  bool keep_ties = true;              // detections equal to the last one kept stay, as in the release
};

// ---- Training. Gradients of x are called d_x. What a node writes into a state (Role::state) it reads first
// unless said otherwise: those outputs carry over from one run to the next.

// (src - offset) * factor inside a border of `pad` pixels that holds (0 - offset) * factor, so that the next
// layer needs no padding of its own. in: src [N,H,W,C].  out: [N,H+2 pad,W+2 pad,C].
struct InputUnits {
  int pad = 0;
  std::array<float, 3> offset{};
  float factor = 1.0f;
};

struct Add {};  // in: a, b of one shape.  out: a + b

// d_src = d_dst where the layer's result was positive. in: d_dst, dst (any shape).  out: d_src.
struct ReluBackward {};

// in: d_dst [N,H',W',O], weight [O,I,KH,KW].  out: d_src [N,height,width,I].
struct Conv2dBackwardData {
  int stride = 1, pad = 0;
  std::int64_t height = 0, width = 0;  // of the source, which the stride does not tell
  DType operands = DType::f32;         // as of Conv2d
};

// in: src [N,H,W,I], d_dst [N,H',W',O].  out: d_weight [O,I,KH,KW], d_bias [O]; both are added to when
// `accumulate`.
struct Conv2dBackwardWeight {
  int stride = 1, pad = 0;
  std::int64_t kernel_h = 1, kernel_w = 1;
  bool accumulate = false;
  DType operands = DType::f32;  // as of Conv2d
};

// in: d_dst [R,O], weight [O,I].  out: d_src [R,I], or [R,H,W,C] when `map` holds H, W and C.
struct LinearBackwardData {
  std::array<std::int64_t, 3> map{};
};

// in: src [R,I] or [R,H,W,C], d_dst [R,O].  out: d_weight [O,I] (columns C,H,W), d_bias [O]; added to when
// `accumulate`.
struct LinearBackwardWeight {
  bool accumulate = false;
};

// in: d_dst [N,H',W',C], argmax u8 of that shape.  out: d_src [N,height,width,C]; each cell gathers from its
// windows.
struct MaxPoolBackward {
  MaxPool pool;
  std::int64_t height = 0, width = 0;
};

struct LrnBackward {  // in: d_dst, src [N,H,W,C].  out: d_src
  Lrn lrn;
};

// Each cell gathers from the bins that it was the maximum of, RoIs in order, and only inside the rounded RoI
// (SPEC 6). in: d_dst [R,PH,PW,C], argmax i32 of that shape, rois [R,5].  out: d_features
// [batch,height,width,C].
struct RoiPoolBackward {
  RoiPool pool;
  std::int64_t batch = 1, height = 0, width = 0;
};

// in: d_dst [R,PH,PW,C], rois [R,5].  out: d_features [batch,height,width,C]; no gradient to the rois.
struct RoiAlignBackward {
  RoiAlign align;
  std::int64_t batch = 1, height = 0, width = 0;
};

// Zeroes each element with probability `ratio`, drawn from (random_key, stream, element), and multiplies the
// others by `scale`. It is its own backward. in: src, any shape, random_key i32 [4] (RandomKey of philox.h).
// out: the same shape.
struct Dropout {
  float ratio = 0.5f;
  float scale = 2.0f;       // 1 / (1 - ratio), or 1 where the factor is applied at test time
  std::uint32_t layer = 0;  // tells the dropout layers of a network apart
};

enum class LossNorm : std::uint8_t {
  caffe,  // over what was drawn
  paper,  // RPN: classification / 256, regression * lambda / locations of the map
};
enum class PositiveAnchors : std::uint8_t {
  always,    // a ground-truth box also claims its best anchors when others overlap it enough
  fallback,  // only a box that no anchor overlaps by positive_iou claims its best anchors
};
enum class UntouchedBoxes : std::uint8_t {
  ignore,   // a box that overlaps no inside anchor claims none
  release,  // as published: it claims every inside anchor, all of which it overlaps by 0
};

// RPN targets (SPEC section 9): labels by overlap in double, then `batch` anchors drawn.
// in: gt_boxes [N,G,5] = x1,y1,x2,y2,class in pixels of the network input, gt_count i32 [N], im_info [N,3],
// random_key i32 [4].  out: labels i32 [N,H,W,A] (1, 0, or -1: no part), targets, inside_weights and
// outside_weights [N,H,W,4A]. Targets are there for every inside anchor when there is a box, 0 elsewhere.
struct AnchorTargets {
  std::vector<std::array<float, 4>> base_anchors;  // A of them, around cell (0,0)
  float feat_stride = 16.0f;
  std::int64_t height = 0, width = 0;  // of the map
  double positive_iou = 0.7, negative_iou = 0.3, allowed_border = 0;
  std::int64_t batch = 256;
  double positive_fraction = 0.5;
  PositiveAnchors positives = PositiveAnchors::always;
  UntouchedBoxes untouched = UntouchedBoxes::ignore;
  LossNorm norm = LossNorm::caffe;
  double lambda = 10;  // LossNorm::paper
};

// RoIs for the head and what they should become (SPEC section 10). Candidates of an image are its proposals,
// then its ground-truth boxes. in: rois [N*M,5], rois_count i32 [N], gt_boxes [N,G,5], gt_count i32 [N],
// random_key i32 [4]. out: rois [N*batch,5], labels i32 [N*batch], targets, inside_weights and
// outside_weights [N*batch,4*classes], count i32 [N]. Foreground first, each part by ascending candidate;
// rows from an image's count on: label -1, rest zero but for the image index.
struct RoiTargets {
  std::int64_t classes = 21;  // with the background
  std::int64_t batch = 128;
  double foreground_fraction = 0.25, foreground_iou = 0.5, background_iou_high = 0.5, background_iou_low = 0;
  std::array<float, 4> means{}, stds{0.1f, 0.1f, 0.2f, 0.2f};
};

// Cross-entropy of a softmax as in Softmax{groups}, -log(max(p, FLT_MIN)), over the labels that are not
// negative. in: score [..., C*groups], labels i32 [..., groups].  out: loss [1], d_score. Both are divided by
// the number of labels that count (at least 1), or by `divisor` when that is positive.
struct SoftmaxLoss {
  int groups = 1;
  double divisor = 0;
};

// outside * f(inside * (pred - target)); f(x) = (sigma x)^2 / 2 where |x| < 1 / sigma^2, else |x| - 1 / (2
// sigma^2). in: pred, target, inside, outside of one shape [N,...], count i32 [K].  out: loss [1], d_pred;
// both divided by the sum of the counts (at least 1), or, when there is no fifth input, by N.
struct SmoothL1Loss {
  double sigma = 1;
};

// The common factor that limits the norm of all gradients. in: any number of gradients.  out: factor [1] =
// min(1, max_norm / (scale * norm)) (1 when max_norm is 0), NaN when the norm is not finite; norms [inputs +
// 1]: of each scaled gradient, then of all.
struct ClipGradients {
  double max_norm = 0;
  double scale = 1;  // of every gradient, e.g. 1 / accumulated images
};

// Caffe's rule; with a factor of NaN nothing changes. g = grad_scale * factor * gradient + decay * w;  v =
// momentum * v + rate * lr_mult * g;  w -= v. in: gradient, factor [1], rates [2] = learning rate, decay of
// the average.  out (states): w, v, and when `average` the moving average a = a + (1 - rates[1]) (w - a).
struct Sgd {
  double momentum = 0.9;
  double lr_mult = 1, decay = 0.0005;
  double grad_scale = 1;
  bool average = false;
};

using Op = std::variant<Preprocess, Conv2d, Relu, Scale, MaxPool, Lrn, Linear, Softmax, DecodeProposals, TopK,
                        Nms, RoiPool, RoiAlign, DecodeBoxes, SelectDetections, InputUnits, Add, ReluBackward,
                        Conv2dBackwardData, Conv2dBackwardWeight, LinearBackwardData, LinearBackwardWeight,
                        MaxPoolBackward, LrnBackward, RoiPoolBackward, RoiAlignBackward, Dropout,
                        AnchorTargets, RoiTargets, SoftmaxLoss, SmoothL1Loss, ClipGradients, Sgd>;

std::string_view name_of(const Op& op);  // "conv2d", "max_pool", ...

}  // namespace frcnn
