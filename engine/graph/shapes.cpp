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

  std::vector<TensorSpec> operator()(const Preprocess& op) const {
    if (in.size() != 1 && in.size() != 2) fail("takes 1 or 2 inputs, got {}", in.size());
    check(0, "images", 2, DType::u8);
    columns(0, "images", sizeof(SourceImage));
    if (in.size() == 2 && in[1].dtype != DType::u8) fail("pixels must be u8, not {}", name_of(in[1].dtype));
    if (op.height < 1 || op.width < 1) fail("a blob of {}x{} pixels has nothing in it", op.width, op.height);
    return {{Shape{in[0].shape[0], op.height, op.width, 3}}};
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
    const std::int64_t h = convolved_size(s[1], w[2], op.stride, op.pad),
                       wd = convolved_size(s[2], w[3], op.stride, op.pad);
    if (h < 1 || wd < 1)
      fail("a {}x{} kernel does not fit a {}x{} map with padding {}", w[2], w[3], s[1], s[2], op.pad);
    return {{Shape{s[0], h, wd, w[0]}}};
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
    if (op.save_argmax && op.kernel > 16)
      fail("a window of {}x{} has more places than the saved maximum can name (16x16)", op.kernel, op.kernel);
    const Shape& s = in[0].shape;
    const Shape out{s[0], pooled_size(s[1], op), pooled_size(s[2], op), s[3]};
    if (out[1] < 1 || out[2] < 1)
      fail("a {}x{} map is too small for kernel {} with padding {}", s[1], s[2], op.kernel, op.pad);
    if (op.save_argmax) return {{out}, {out, DType::u8}};
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

  // Input number `i` may be there.
  void optional_map_sizes(std::size_t i, std::int64_t images) const {
    if (in.size() != i + 1) return arity(i);
    shape(i, "map_sizes", {images, 4}, DType::i32);
  }

  std::vector<TensorSpec> operator()(const DecodeProposals& op) const {
    if (in.size() < 3) arity(3);
    optional_map_sizes(3, in[0].shape[0]);
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
    if (in.size() < 2) arity(2);
    optional_map_sizes(2, in[0].shape[0]);
    check(0, "features", 4);
    check(1, "rois", 2);
    columns(1, "rois", 5);
    if (h < 1 || w < 1 || !(scale > 0)) fail("pooled size {}x{} at scale {} makes no pooling", h, w, scale);
    return {{Shape{in[1].shape[0], h, w, in[0].shape[3]}}};
  }
  std::vector<TensorSpec> operator()(const RoiPool& op) const {
    std::vector<TensorSpec> out = rois(op.pooled_h, op.pooled_w, op.spatial_scale);
    if (op.save_argmax) {
      arity(2);
      out.push_back({out[0].shape, DType::i32});
    }
    return out;
  }
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
    if (c < 2)
      fail("there must be a background and at least one class, cls_prob is {}", to_string(in[0].shape));
    if (in[1].shape[1] != 4 && in[1].shape[1] != 4 * c)
      fail("{} classes need {} or 4 box columns, pred_boxes is {}", c, 4 * c, to_string(in[1].shape));
    if (n < 1 || r % n != 0) fail("{} rois do not divide into {} images", r, n);
    return {{Shape{n, r / n * (c - 1), 6}}, {Shape{n}, DType::i32}, {Shape{1}, DType::i32}};
  }

  // ---- Training.

  void shape(std::size_t i, std::string_view what, const Shape& expected, DType dtype = DType::f32) const {
    if (in[i].shape != expected || in[i].dtype != dtype)
      fail("{} must be {} {}, not {} {}", what, name_of(dtype), to_string(expected), name_of(in[i].dtype),
           to_string(in[i].shape));
  }
  void random_key(std::size_t i) const { shape(i, "random_key", {4}, DType::i32); }

  std::vector<TensorSpec> operator()(const InputUnits& op) const {
    arity(1);
    check(0, "source", 4);
    columns(0, "source", 3);
    if (op.pad < 0) fail("a border of {} pixels", op.pad);
    const Shape& s = in[0].shape;
    return {{Shape{s[0], s[1] + 2 * op.pad, s[2] + 2 * op.pad, s[3]}}};
  }

  std::vector<TensorSpec> two_alike(std::string_view a, std::string_view b) const {
    arity(2);
    if (in[0] != in[1])
      fail("{} is {} {} but {} {} {}", a, name_of(in[0].dtype), to_string(in[0].shape), b,
           name_of(in[1].dtype), to_string(in[1].shape));
    return {in[0]};
  }
  std::vector<TensorSpec> operator()(const Add&) const { return two_alike("one term", "the other"); }
  std::vector<TensorSpec> operator()(const ReluBackward&) const { return two_alike("d_dst", "dst"); }
  std::vector<TensorSpec> operator()(const LrnBackward& op) const {
    check(0, "d_dst", 4);
    if (op.lrn.size < 1 || op.lrn.size % 2 == 0)
      fail("local_size must be odd and positive, not {}", op.lrn.size);
    return two_alike("d_dst", "source");
  }

  std::vector<TensorSpec> operator()(const Conv2dBackwardData& op) const {
    arity(2);
    check(0, "d_dst", 4);
    check(1, "weight", 4);
    const Shape &d = in[0].shape, &w = in[1].shape;
    const Shape src{d[0], op.height, op.width, w[1]};
    const TensorSpec forward[] = {{src}, in[1], {Shape{w[0]}}};
    shape(0, "d_dst", Rule{forward, layer}(Conv2d{op.stride, op.pad, {}})[0].shape);
    return {{src}};
  }
  std::vector<TensorSpec> operator()(const Conv2dBackwardWeight& op) const {
    arity(2);
    check(0, "source", 4);
    check(1, "d_dst", 4);
    const Shape &s = in[0].shape, &d = in[1].shape;
    const TensorSpec weight{Shape{d[3], s[3], op.kernel_h, op.kernel_w}}, bias{Shape{d[3]}};
    const TensorSpec forward[] = {in[0], weight, bias};
    shape(1, "d_dst", Rule{forward, layer}(Conv2d{op.stride, op.pad, {}})[0].shape);
    return {weight, bias};
  }

  std::vector<TensorSpec> operator()(const LinearBackwardData& op) const {
    arity(2);
    check(0, "d_dst", 2);
    check(1, "weight", 2);
    const Shape &d = in[0].shape, &w = in[1].shape;
    columns(0, "d_dst", w[0]);
    if (op.map[0] == 0) return {{Shape{d[0], w[1]}}};
    const Shape src{d[0], op.map[0], op.map[1], op.map[2]};
    if (src.row() != w[1])
      fail("a source of {} does not have the weight's {} values a row", to_string(src), w[1]);
    return {{src}};
  }
  std::vector<TensorSpec> operator()(const LinearBackwardWeight&) const {
    arity(2);
    const Shape& s = in[0].shape;
    check(0, "source", s.rank == 4 ? 4 : 2);
    check(1, "d_dst", 2);
    rows(1, "d_dst", s[0]);
    return {{Shape{in[1].shape[1], s.row()}}, {Shape{in[1].shape[1]}}};
  }

  std::vector<TensorSpec> operator()(const MaxPoolBackward& op) const {
    arity(2);
    check(0, "d_dst", 4);
    const Shape& d = in[0].shape;
    shape(1, "argmax", d, DType::u8);
    const TensorSpec src{Shape{d[0], op.height, op.width, d[3]}};
    const TensorSpec forward[] = {src};
    shape(0, "d_dst", Rule{forward, layer}(op.pool)[0].shape);
    return {src};
  }

  std::vector<TensorSpec> roi_backward(std::size_t roi_input, int h, int w, const Shape& features) const {
    check(0, "d_dst", 4);
    check(roi_input, "rois", 2);
    columns(roi_input, "rois", 5);
    shape(0, "d_dst", {in[roi_input].shape[0], h, w, in[0].shape[3]});
    if (features[0] < 1 || features[1] < 1 || features[2] < 1) fail("features of {}", to_string(features));
    return {{features}};
  }
  std::vector<TensorSpec> operator()(const RoiPoolBackward& op) const {
    arity(3);
    shape(1, "argmax", in[0].shape, DType::i32);
    return roi_backward(2, op.pool.pooled_h, op.pool.pooled_w,
                        {op.batch, op.height, op.width, in[0].shape[3]});
  }
  std::vector<TensorSpec> operator()(const RoiAlignBackward& op) const {
    arity(2);
    return roi_backward(1, op.align.pooled_h, op.align.pooled_w,
                        {op.batch, op.height, op.width, in[0].shape[3]});
  }

  std::vector<TensorSpec> operator()(const Dropout& op) const {
    arity(2);
    random_key(1);
    if (!(op.ratio >= 0 && op.ratio < 1)) fail("a dropout ratio lies in [0, 1), not {}", op.ratio);
    return {in[0]};
  }

  // gt_boxes and gt_count at `i`; returns the number of images.
  std::int64_t ground_truth(std::size_t i) const {
    check(i, "gt_boxes", 3);
    columns(i, "gt_boxes", 5);
    const std::int64_t n = in[i].shape[0];
    shape(i + 1, "gt_count", {n}, DType::i32);
    return n;
  }
  void fraction(std::string_view what, double value) const {
    if (!(value >= 0 && value <= 1)) fail("{} must lie in [0, 1], not {}", what, value);
  }

  std::vector<TensorSpec> operator()(const AnchorTargets& op) const {
    arity(4);
    const std::int64_t n = ground_truth(0), a = static_cast<std::int64_t>(op.base_anchors.size());
    shape(2, "im_info", {n, 3});
    random_key(3);
    if (a < 1 || op.height < 1 || op.width < 1) fail("{} anchors on a map of {}x{}", a, op.height, op.width);
    if (op.batch < 1) fail("at least one anchor must be drawn, not {}", op.batch);
    fraction("positive_fraction", op.positive_fraction);
    const TensorSpec boxes{Shape{n, op.height, op.width, 4 * a}};
    return {{Shape{n, op.height, op.width, a}, DType::i32}, boxes, boxes, boxes};
  }

  std::vector<TensorSpec> operator()(const RoiTargets& op) const {
    arity(5);
    check(0, "rois", 2);
    columns(0, "rois", 5);
    const std::int64_t n = ground_truth(2);
    shape(1, "rois_count", {n}, DType::i32);
    random_key(4);
    if (n < 1 || in[0].shape[0] % n != 0) fail("{} rois do not divide into {} images", in[0].shape[0], n);
    if (op.batch < 1) fail("at least one roi must be drawn, not {}", op.batch);
    if (op.classes < 2) fail("there must be a background and at least one class");
    fraction("foreground_fraction", op.foreground_fraction);
    for (float std : op.stds)
      if (!(std > 0)) fail("a standard deviation of {}", std);
    const std::int64_t r = n * op.batch;
    const TensorSpec boxes{Shape{r, 4 * op.classes}};
    return {{Shape{r, 5}}, {Shape{r}, DType::i32}, boxes, boxes, boxes, {Shape{n}, DType::i32}};
  }

  std::vector<TensorSpec> operator()(const SoftmaxLoss& op) const {
    arity(2);
    const Shape& s = in[0].shape;
    if (op.groups < 1 || s.rank < 1 || s[s.rank - 1] % op.groups != 0)
      fail("softmax in {} groups over the last dimension of {}", op.groups, to_string(s));
    Shape labels = s;
    labels[s.rank - 1] = op.groups;
    if (in[1].dtype != DType::i32 || in[1].shape.elements() != labels.elements())
      fail("labels of {} must be i32 {}, not {} {}", to_string(s), to_string(labels), name_of(in[1].dtype),
           to_string(in[1].shape));
    return {{Shape{1}}, in[0]};
  }
  std::vector<TensorSpec> operator()(const SmoothL1Loss& op) const {
    if (in.size() != 4) arity(5);
    for (std::size_t i = 1; i < 4; ++i)
      shape(i, i == 1 ? "target" : i == 2 ? "inside" : "outside", in[0].shape);
    if (in.size() == 5) check(4, "count", 1, DType::i32);
    if (!(op.sigma > 0)) fail("sigma must be positive, not {}", op.sigma);
    return {{Shape{1}}, in[0]};
  }

  std::vector<TensorSpec> operator()(const ClipGradients&) const {
    if (in.empty()) fail("there is no gradient");
    for (std::size_t i = 0; i < in.size(); ++i) check(i, "gradient", in[i].shape.rank);
    return {{Shape{1}}, {Shape{static_cast<std::int64_t>(in.size()) + 1}}};
  }
  std::vector<TensorSpec> operator()(const Sgd& op) const {
    arity(3);
    shape(1, "factor", {1});
    shape(2, "rates", {2});
    return std::vector<TensorSpec>(op.average ? 3 : 2, in[0]);
  }
};

}  // namespace

std::int64_t convolved_size(std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t pad) {
  return in < 1 || in + 2 * pad < kernel ? 0 : (in + 2 * pad - kernel) / stride + 1;
}

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
    return products(static_cast<double>(src[0]) * static_cast<double>(size(1) * size(2)) *
                    static_cast<double>(weight[0]));
  }
  if (std::holds_alternative<Conv2dBackwardData>(op) || std::holds_alternative<LinearBackwardData>(op))
    return 2.0 * static_cast<double>(in[0].shape.elements()) * static_cast<double>(in[1].shape.row());
  if (std::holds_alternative<Conv2dBackwardWeight>(op) || std::holds_alternative<LinearBackwardWeight>(op))
    return 2.0 * static_cast<double>(in[1].shape.elements()) * static_cast<double>(out[0].shape.row());
  return 0;
}

}  // namespace frcnn
