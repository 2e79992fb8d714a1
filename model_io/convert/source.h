// A file to convert: its format, found from its content, and its tensors under the published names.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "detector/config.h"
#include "graph/tensor.h"
#include "model_io/convert/caffe_file.h"

namespace frcnn {

struct SourceTensor {
  std::string file;                 // where it comes from
  std::string source_name;          // "conv1_1 blob 0", or the name in the file
  std::string name;                 // "conv1_1.weight"
  DType dtype = DType::f32;         // f32, f16, bf16 or f64
  std::vector<std::int64_t> shape;  // Caffe's leading ones removed where they carry nothing
  const void* data = nullptr;       // any alignment
  std::size_t bytes = 0;
  std::shared_ptr<const void> owner;
};

struct Source {
  std::string path;
  std::string format;  // "caffemodel", "caffemodel (V1 layers)", "safetensors", "frcnn model"
  std::vector<SourceTensor> tensors;
  std::optional<CaffeNet> net;        // caffemodel; its blobs are in `tensors`
  std::optional<ModelConfig> config;  // our own model file
};

// Throws Error(io), Error(bad_file), or Error(unsupported) for a format that is known but not read; each
// names the file.
Source read_source(const std::string& path);

}  // namespace frcnn
