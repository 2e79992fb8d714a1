// The closed set of operations: one plain attribute struct each. Adding one is described in
// docs/adding_an_op.md; the compiler lists every place that was forgotten.
//
// Layout everywhere: NHWC, packed. Weights keep the published order (OIHW, OI) in the model; each device packs
// its own copy. Boxes are inclusive corners x1,y1,x2,y2 (width = x2 - x1 + 1).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

namespace frcnn {

// What a convolution or a fully connected layer does to its sums before storing them, in this order.
struct Epilogue {
  bool relu = false;
  float scale = 1.0f;
  bool max_pool_2x2 = false;     // convolution: stores the MaxPool{2, 2, 0, ceil} of its map instead of the map
  bool operator==(const Epilogue&) const = default;
};

enum class Rounding { ceil, floor };                     // of a pooling's output size
enum class LrnRegion { within_channel, across_channels };
enum class Suppress { above, at_or_above };              // a box falls when its IoU is > or >= the threshold

// How 8-bit source pixels are stored. nv12: a plane of luma, then a plane of interleaved U, V, one pair for 2x2 pixels,
// BT.601 limited range (docs/numerics.md states the formula).
enum class PixelFormat : std::uint8_t { bgr, rgb, nv12 };

// Image to network input (SPEC: 8-bit BGR, subtract the mean in double, then resize as cv2.resize does on float32).
// in: image u8, either [N,H,W,3], packed bgr or rgb, with height and width left at 0; or frames whose rows are `pitch`
//     bytes apart, [N,rows,pitch], with their height and width in pixels: bgr and rgb have H rows of at least 3W bytes, nv12
//     H rows of at least W bytes and then ceil(H/2) rows of ceil(W/2) pairs. What lies behind a row is not looked at.
// out: data f32 [N, round_half_even(H*scale), round_half_even(W*scale), 3] in the order B, G, R.
struct Preprocess {
  double scale = 1.0;
  std::array<double, 3> mean_bgr{};
  PixelFormat format = PixelFormat::bgr;
  std::int64_t height = 0, width = 0;
};

// Cross-correlation with zero padding. in: src [N,H,W,I], weight [O,I,KH,KW], bias [O].  out: [N,H',W',O],
// H' = floor((H + 2 pad - KH) / stride) + 1.
struct Conv2d {
  int stride = 1;
  int pad = 0;
  Epilogue epilogue;
};

struct Relu {};                                          // in: src, any shape.  out: the same shape

struct Scale {                                           // dst = factor * src, any shape
  float factor = 1.0f;
};

// Caffe's rule: out = round((in + 2 pad - kernel) / stride) + 1, less one if pad > 0 and the last window would
// start in the padding. Windows are clipped to the map; the first maximum wins.
struct MaxPool {
  int kernel = 2;
  int stride = 2;
  int pad = 0;
  Rounding rounding = Rounding::ceil;
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

// in: src [R,I] or [R,H,W,C], weight [O,I], bias [O].  out: [R,O]. For a rank-4 source the weight's columns are
// in the published C,H,W order; packing moves them to H,W,C.
struct Linear {
  Epilogue epilogue;
};

// Softmax over the channels {g, g+groups, g+2 groups, ...} for each g of the last dimension: groups = anchors
// for RPN scores (background in the first `groups` channels), 1 for class scores.
struct Softmax {
  int groups = 1;
};

// Anchors, decoding, clipping and the minimum-size filter of the proposal layer, for every (h, w, a), a fastest.
// in: prob [N,H,W,2A], deltas [N,H,W,4A], im_info [N,3] = height, width, scale.
// out: boxes [N,HWA,4] in pixels of the resized image, scores [N,HWA] (minus infinity where filtered out),
//      nonfinite i32 [1]: 0, or 1 when a score or delta is NaN or infinite.
struct DecodeProposals {
  std::vector<std::array<float, 4>> base_anchors;        // A of them, around cell (0,0)
  float feat_stride = 16.0f;
  float min_size = 16.0f;                                // pixels of the original image; multiplied by the scale
};

// The k best by score, descending, equal scores by ascending index; filtered entries never appear.
// in: boxes [N,M,4], scores [N,M].  out: boxes [N,K,4], scores [N,K], count i32 [N]; K = min(k, M), or M if k <= 0.
// Rows from count on are zero.
struct TopK {
  std::int64_t k = 6000;
};

// Greedy suppression of boxes that are sorted by score, stopping at max_out survivors per image.
// in: boxes [N,K,4], scores [N,K], count i32 [N].
// out: rois [N*max_out,5] = image index, x1,y1,x2,y2; roi_scores [N*max_out]; count i32 [N]. Rows of image n start
// at n*max_out; those from its count on are zero but for the image index.
struct Nms {
  float threshold = 0.7f;
  Suppress suppress = Suppress::above;
  std::int64_t max_out = 300;
};

// Caffe's RoI max pooling (coordinates rounded half away from zero, bins by IEEE division, empty bins give 0).
// in: features [N,H,W,C], rois [R,5].  out: [R,pooled_h,pooled_w,C].
struct RoiPool {
  int pooled_h = 7;
  int pooled_w = 7;
  float spatial_scale = 0.0625f;
};

// Mean of bilinear samples. sampling_ratio 0 takes ceil(roi size / pooled size) samples per bin and direction.
// aligned shifts by half a cell and lets boxes shrink below one cell.
struct RoiAlign {
  int pooled_h = 7;
  int pooled_w = 7;
  float spatial_scale = 0.0625f;
  int sampling_ratio = 0;
  bool aligned = false;
};

// Boxes of every class in original pixels: rois / scale, decoded, clipped to the original image.
// in: rois [N*M,5], bbox_pred [N*M,4C] (C classes with background, or 1 for class-agnostic heads), im_info [N,3],
// image_size [N,2] = height, width of the original.  out: pred_boxes [N*M,4C].
struct DecodeBoxes {};

// Score threshold, suppression within each class, and the cap on detections per image.
// in: cls_prob [N*M,C], pred_boxes [N*M,4C] or [N*M,4], count i32 [N] (valid rois of each image).
// out: detections [N,D,6] = class, score, x1,y1,x2,y2, classes ascending, scores descending (ties: lower roi first);
//      count i32 [N]; nonfinite i32 [1] as in DecodeProposals. D = M*(C-1) where ties at the cap are kept.
struct SelectDetections {
  float score_threshold = 0.05f;                         // strict: score > threshold
  float nms_threshold = 0.3f;
  Suppress suppress = Suppress::above;
  std::int64_t max_detections = 100;                     // per image over all classes; <= 0: no cap
  bool keep_ties = true;                                 // detections equal to the last one kept stay, as in the release
};

using Op = std::variant<Preprocess, Conv2d, Relu, Scale, MaxPool, Lrn, Linear, Softmax, DecodeProposals, TopK, Nms,
                        RoiPool, RoiAlign, DecodeBoxes, SelectDetections>;

std::string_view name_of(const Op& op);                  // "conv2d", "max_pool", ...

}  // namespace frcnn
