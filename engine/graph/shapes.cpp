#include "graph/shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "frcnn/error.h"

namespace frcnn {
namespace {

// Checks and messages of one inference; every failure names the layer first.
struct Rule {
  std::span<const TensorSpec> in;
  std::string_view layer;

  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    throw Error(ErrorCode::bad_model,
                fmt::format("{}: {}", layer, fmt::format(text, std::forward<Args>(args)...)));
  }
  void arity(std::size_t n) const {
    if (in.size() != n) fail("takes {} inputs, got {}", n, in.size());
  }
  void check(std::size_t i, std::string_view what, int rank, DType dtype = DType::f32) const {
    if (in[i].shape.rank != rank)
      fail("{} must have {} dimensions, not {}", what, rank, to_string(in[i].shape));
    if (in[i].dtype != dtype) fail("{} must be {}, not {}", what, name_of(dtype), name_of(in[i].dtype));
    for (int d = 0; d < rank; ++d)
      if (in[i].shape[d] < 0) fail("{} has a negative dimension: {}", what, to_string(in[i].shape));
  }
  void columns(std::size_t i, std::string_view what, std::int64_t expected) const {
    const Shape& s = in[i].shape;
    if (s[s.rank - 1] != expected)
      fail("{} must have {} in its last dimension, its shape is {}", what, expected, to_string(s));
  }
  void rows(std::size_t i, std::string_view what, std::int64_t expected) const {
    if (in[i].shape[0] != expected)
      fail("{} must have {} rows, its shape is {}", what, expected, to_string(in[i].shape));
  }
  void bias(std::size_t i, std::int64_t outputs) const {
    check(i, "bias", 1);
    if (in[i].shape[0] != outputs) fail("bias has {} values, the weight {} outputs", in[i].shape[0], outputs);
  }

  // Number, height and width of the images that a Preprocess reads.
  std::array<std::int64_t, 3> frames(const Preprocess& op) const {
    const bool nv12 = op.format == PixelFormat::nv12;
    if (op.height == 0 && op.width == 0 && !nv12) {
      check(0, "image", 4, DType::u8);
      columns(0, "image", 3);
      return {in[0].shape[0], in[0].shape[1], in[0].shape[2]};
    }
    check(0, "image", 3, DType::u8);
    const Shape& s = in[0].shape;
    if (op.height < 1 || op.width < 1) fail("a frame of {}x{} pixels has nothing in it", op.width, op.height);
    const std::int64_t rows = nv12 ? op.height + (op.height + 1) / 2 : op.height;
    const std::int64_t bytes = nv12 ? (op.width + 1) / 2 * 2 : op.width * 3;
    if (s[1] != rows) fail("a frame of {} lines has {} rows, the image {}", op.height, rows, s[1]);
    if (s[2] < bytes) fail("a row of {} pixels takes {} bytes, the image's pitch is {}", op.width, bytes, s[2]);
    return {s[0], op.height, op.width};
  }

  std::vector<TensorSpec> operator()(const Preprocess& op) const {
    arity(1);
    const auto [n, height, width] = frames(op);
    if (!(op.scale > 0) || !std::isfinite(op.scale)) fail("scale must be positive, not {}", op.scale);
    auto scaled = [&](std::int64_t side) { return std::max<std::int64_t>(0, std::llrint(static_cast<double>(side) * op.scale)); };
    const Shape out{n, scaled(height), scaled(width), 3};
    if (out[1] < 1 || out[2] < 1)
      fail("an image of {}x{} pixels has no pixel left at scale {}", width, height, op.scale);
    return {{out}};
  }

  std::vector<TensorSpec> operator()(const Conv2d& op) const {
    arity(3);
    check(0, "source", 4);
    check(1, "weight", 4);
    const Shape &s = in[0].shape, &w = in[1].shape;
    if (w[1] != s[3]) fail("weight {} has {} input channels, its source {}", to_string(w), w[1], s[3]);
    bias(2, w[0]);
    if (w.row() == 0) fail("weight {} has no values to sum", to_string(w));
    if (op.stride < 1 || op.pad < 0) fail("stride {} and pad {} make no convolution", op.stride, op.pad);
    const std::int64_t h = s[1] + 2 * op.pad - w[2], wd = s[2] + 2 * op.pad - w[3];
    if (h < 0 || wd < 0)
      fail("a {}x{} kernel does not fit a {}x{} map with padding {}", w[2], w[3], s[1], s[2], op.pad);
    return {{Shape{s[0], h / op.stride + 1, wd / op.stride + 1, w[0]}}};
  }

  std::vector<TensorSpec> same() const {
    arity(1);
    return {in[0]};
  }
  std::vector<TensorSpec> operator()(const Relu&) const { return same(); }
  std::vector<TensorSpec> operator()(const Scale&) const { return same(); }

  std::vector<TensorSpec> operator()(const MaxPool& op) const {
    arity(1);
    check(0, "source", 4);
    if (op.kernel < 1 || op.stride < 1 || op.pad < 0 || op.pad >= op.kernel)
      fail("kernel {}, stride {} and pad {} make no pooling", op.kernel, op.stride, op.pad);
    const Shape& s = in[0].shape;
    const Shape out{s[0], pooled_size(s[1], op), pooled_size(s[2], op), s[3]};
    if (out[1] < 1 || out[2] < 1)
      fail("a {}x{} map is too small for kernel {} with padding {}", s[1], s[2], op.kernel, op.pad);
    return {{out}};
  }

  std::vector<TensorSpec> operator()(const Lrn& op) const {
    check(0, "source", 4);
    if (op.size < 1 || op.size % 2 == 0) fail("local_size must be odd and positive, not {}", op.size);
    return same();
  }

  std::vector<TensorSpec> operator()(const Linear&) const {
    arity(3);
    const Shape& s = in[0].shape;
    check(0, "source", s.rank == 4 ? 4 : 2);
    check(1, "weight", 2);
    if (in[1].shape[1] != s.row())
      fail("weight {} takes {} values a row, its source {} has {}", to_string(in[1].shape), in[1].shape[1],
           to_string(s), s.row());
    if (s.row() == 0) fail("source {} has no values to sum", to_string(s));
    bias(2, in[1].shape[0]);
    return {{Shape{s[0], in[1].shape[0]}}};
  }

  std::vector<TensorSpec> operator()(const Softmax& op) const {
    const Shape& s = in[0].shape;
    if (op.groups < 1 || s.rank < 1 || s[s.rank - 1] % op.groups != 0)
      fail("softmax in {} groups over the last dimension of {}", op.groups, to_string(s));
    return same();
  }

  std::vector<TensorSpec> operator()(const DecodeProposals& op) const {
    arity(3);
    check(0, "scores", 4);
    check(1, "deltas", 4);
    check(2, "im_info", 2);
    const auto a = static_cast<std::int64_t>(op.base_anchors.size());
    if (a < 1) fail("there are no anchors");
    columns(0, "scores", 2 * a);
    columns(1, "deltas", 4 * a);
    columns(2, "im_info", 3);
    const Shape& s = in[0].shape;
    for (int d = 0; d < 3; ++d)
      if (in[1].shape[d] != s[d]) fail("scores are {} but deltas {}", to_string(s), to_string(in[1].shape));
    rows(2, "im_info", s[0]);
    const std::int64_t m = s[1] * s[2] * a;
    return {{Shape{s[0], m, 4}}, {Shape{s[0], m}}, {Shape{1}, DType::i32}};
  }

  std::vector<TensorSpec> operator()(const TopK& op) const {
    arity(2);
    check(0, "boxes", 3);
    check(1, "scores", 2);
    columns(0, "boxes", 4);
    const Shape& s = in[1].shape;
    if (in[0].shape[0] != s[0] || in[0].shape[1] != s[1])
      fail("boxes are {} but scores {}", to_string(in[0].shape), to_string(s));
    const std::int64_t k = op.k <= 0 ? s[1] : std::min(op.k, s[1]);
    return {{Shape{s[0], k, 4}}, {Shape{s[0], k}}, {Shape{s[0]}, DType::i32}};
  }

  std::vector<TensorSpec> operator()(const Nms& op) const {
    arity(3);
    check(0, "boxes", 3);
    check(1, "scores", 2);
    check(2, "count", 1, DType::i32);
    columns(0, "boxes", 4);
    if (op.max_out < 1) fail("at least one box must be allowed to survive, not {}", op.max_out);
    const std::int64_t n = in[0].shape[0];
    rows(1, "scores", n);
    rows(2, "count", n);
    return {{Shape{n * op.max_out, 5}}, {Shape{n * op.max_out}}, {Shape{n}, DType::i32}};
  }

  std::vector<TensorSpec> rois(int h, int w, float scale) const {
    arity(2);
    check(0, "features", 4);
    check(1, "rois", 2);
    columns(1, "rois", 5);
    if (h < 1 || w < 1 || !(scale > 0)) fail("pooled size {}x{} at scale {} makes no pooling", h, w, scale);
    return {{Shape{in[1].shape[0], h, w, in[0].shape[3]}}};
  }
  std::vector<TensorSpec> operator()(const RoiPool& op) const { return rois(op.pooled_h, op.pooled_w, op.spatial_scale); }
  std::vector<TensorSpec> operator()(const RoiAlign& op) const {
    if (op.sampling_ratio < 0) fail("sampling_ratio must not be negative, it is {}", op.sampling_ratio);
    return rois(op.pooled_h, op.pooled_w, op.spatial_scale);
  }

  std::vector<TensorSpec> operator()(const DecodeBoxes&) const {
    arity(4);
    check(0, "rois", 2);
    check(1, "bbox_pred", 2);
    check(2, "im_info", 2);
    check(3, "image_size", 2);
    columns(0, "rois", 5);
    columns(2, "im_info", 3);
    columns(3, "image_size", 2);
    rows(1, "bbox_pred", in[0].shape[0]);
    rows(3, "image_size", in[2].shape[0]);
    if (in[1].shape[1] % 4 != 0 || in[1].shape[1] == 0)
      fail("bbox_pred must have a multiple of 4 columns, its shape is {}", to_string(in[1].shape));
    if (in[2].shape[0] < 1 || in[0].shape[0] % in[2].shape[0] != 0)
      fail("{} rois do not divide into {} images", in[0].shape[0], in[2].shape[0]);
    return {in[1]};
  }

  std::vector<TensorSpec> operator()(const SelectDetections&) const {
    arity(3);
    check(0, "cls_prob", 2);
    check(1, "pred_boxes", 2);
    check(2, "count", 1, DType::i32);
    const std::int64_t r = in[0].shape[0], c = in[0].shape[1], n = in[2].shape[0];
    rows(1, "pred_boxes", r);
    if (c < 2) fail("there must be a background and at least one class, cls_prob is {}", to_string(in[0].shape));
    if (in[1].shape[1] != 4 && in[1].shape[1] != 4 * c)
      fail("{} classes need {} or 4 box columns, pred_boxes is {}", c, 4 * c, to_string(in[1].shape));
    if (n < 1 || r % n != 0) fail("{} rois do not divide into {} images", r, n);
    return {{Shape{n, r / n * (c - 1), 6}}, {Shape{n}, DType::i32}, {Shape{1}, DType::i32}};
  }
};

}  // namespace

std::int64_t pooled_size(std::int64_t in, const MaxPool& pool) {
  const std::int64_t span = in + 2 * pool.pad - pool.kernel;
  if (in < 1 || (span < 0 && pool.rounding == Rounding::floor)) return 0;
  // Division truncates, so a negative span is already rounded up: a 1x1 map still makes one 2x2 window.
  const std::int64_t up = pool.rounding == Rounding::ceil && span > 0 ? pool.stride - 1 : 0;
  std::int64_t out = (span + up) / pool.stride + 1;
  if (pool.pad > 0 && (out - 1) * pool.stride >= in + pool.pad) --out;
  return out;
}

std::vector<TensorSpec> infer(const Op& op, std::span<const TensorSpec> in, std::string_view layer) {
  const Rule rule{in, layer};
  if (in.empty()) rule.fail("has no input");
  return std::visit(rule, op);
}

double flops(const Op& op, std::span<const TensorSpec> in, std::span<const TensorSpec> out) {
  const auto products = [&](double sums) { return 2.0 * sums * static_cast<double>(in[1].shape.row()); };
  if (std::holds_alternative<Linear>(op)) return products(static_cast<double>(out[0].shape.elements()));
  if (const auto* conv = std::get_if<Conv2d>(&op)) {
    // Not from the output: what a pooling epilogue leaves out was computed all the same.
    const Shape &src = in[0].shape, &weight = in[1].shape;
    const auto size = [&](int direction) {
      return (src[direction] + 2 * conv->pad - weight[direction + 1]) / conv->stride + 1;
    };
    return products(static_cast<double>(src[0]) * static_cast<double>(size(1) * size(2)) * static_cast<double>(weight[0]));
  }
  return 0;
}

}  // namespace frcnn
