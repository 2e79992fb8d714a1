// Makes a model file of other programs' weights: Caffe's, PyTorch's, or safetensors under the names of
// either, or our own again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "detector/config.h"
#include "graph/tensor.h"

namespace frcnn {

// What the source's first convolution reads. caffe: blue, green, red in 0..255 minus a mean. torchvision:
// red, green, blue in 0..1, normalised; folded into the convolution (fold.h).
enum class InputForm : std::uint8_t { caffe, torchvision };

struct ConvertOptions {
  std::vector<std::string>
      sources;  // formats are told from content; later files add to and replace earlier ones
  std::string destination;
  std::string prototxt;            // empty: none. Overrides what the sources say or imply
  std::string classes;             // "voc", "coco", or a file of one name per line; empty: not given
  std::optional<DType> dtype;      // f32, f16 or bf16 of weights; nothing: as in the source. Biases are f32
  std::optional<InputForm> input;  // nothing: caffe, which is printed as assumed where names suggest a doubt
  std::vector<std::pair<std::string, std::string>>
      sets;  // set_config's key and value, applied last and in order
  bool allow_nonfinite = false;
};

struct ConvertedTensor {
  std::string file, source;  // where it came from; source is empty for a bias that the net has not
  std::string name;
  std::vector<std::int64_t> shape;
  DType source_dtype = DType::f32, dtype = DType::f32;
};

struct ConvertedSource {
  std::string file, format;
};

struct ConversionResult {
  ModelConfig config;
  std::vector<ConvertedSource> sources;
  std::vector<ConvertedTensor> tensors;  // in network order
  std::vector<std::string> implied;      // what names and shapes said, one sentence each
  std::vector<std::string> assumed;      // conventions of the published model that this is
  std::vector<std::string> ignored;      // tensors of the sources that a detector has no use for
  std::int64_t parameters = 0;
  std::uintmax_t bytes = 0;  // of the destination
};

// Writes options.destination whole or not at all. Throws Error naming the file, layer or tensor: all missing,
// unknown and mis-shaped tensors together, and all conventions that must still be given. Safe to call from
// several threads.
ConversionResult convert(const ConvertOptions& options);

}  // namespace frcnn
