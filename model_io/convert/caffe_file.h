// Caffe's network files as plain structures: the binary .caffemodel (both layer formats) and the text
// prototxt. Protocol buffers stay behind this header.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn {

struct CaffeConvolution {
  std::int64_t outputs = 0;                  // 0: not given
  std::array<std::int64_t, 2> kernel{0, 0};  // height, width; 0: not given
  std::array<std::int64_t, 2> stride{1, 1}, pad{0, 0}, dilation{1, 1};
  std::int64_t group = 1;
  bool bias = true;
};

struct CaffePooling {
  enum class Method : std::uint8_t { max, average, stochastic };
  Method method = Method::max;
  std::array<std::int64_t, 2> kernel{0, 0}, stride{1, 1}, pad{0, 0};
  Rounding rounding = Rounding::ceil;
  bool global = false;
};

struct CaffeInnerProduct {
  std::int64_t outputs = 0;
  bool bias = true, transpose = false;
};

struct CaffeDropout {
  double ratio = 0.5;
  bool scale_train = true;  // false: activations are multiplied by 1 - ratio when testing
};

struct CaffeRoiPooling {
  std::int64_t pooled_h = 0, pooled_w = 0;
  double spatial_scale = 1;
};

struct CaffePower {  // (shift + scale x) ^ power
  double power = 1, scale = 1, shift = 0;
};

// OpenCV's counterpart of the release's Python layer.
struct CaffeProposal {
  double feat_stride = 16, base_size = 16;
  std::vector<double> ratios, scales;
};

struct CaffePython {
  std::string module, layer, param_str;
};

// A stored array; `data` lives as long as `owner`.
struct CaffeBlob {
  DType dtype = DType::f32;         // f32 or f64
  std::vector<std::int64_t> shape;  // as stored; its product equals the number of elements
  const void* data = nullptr;
  std::size_t bytes = 0;
  std::shared_ptr<const void> owner;
};

// Parameters are absent where the file has none, which is not the same as their defaults.
struct CaffeLayer {
  std::string name, type;  // type as in the newer format: "Convolution", "ReLU", ...
  std::vector<std::string> bottoms, tops;
  std::vector<CaffeBlob> blobs;
  std::optional<CaffeConvolution> convolution;
  std::optional<CaffePooling> pooling;
  std::optional<Lrn> lrn;
  std::optional<CaffeInnerProduct> inner_product;
  std::optional<CaffeDropout> dropout;
  std::optional<CaffeRoiPooling> roi_pooling;
  std::optional<CaffePower> power;
  std::optional<CaffeProposal> proposal;
  std::optional<CaffePython> python;
  double negative_slope = 0;  // of a ReLU
};

struct CaffeNet {
  std::string name;
  std::vector<std::string> inputs;
  std::vector<CaffeLayer> layers;  // in file order
  bool old_format = false;         // layers of the older format
};

// `source` stands for the file in messages. Throws Error(bad_file) with the byte offset and the layer where
// the bytes stop making sense; allocates no more than a small multiple of what the bytes hold.
CaffeNet parse_caffemodel(std::span<const std::byte> bytes, const std::string& source);

// Unknown fields are skipped. Throws Error(bad_file) with line and column.
CaffeNet parse_prototxt(std::string_view text, const std::string& source);
CaffeNet read_prototxt(const std::string& path);  // Error(io) when it cannot be read

}  // namespace frcnn
