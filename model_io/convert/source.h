// A file to convert: its format, found from its content, and its tensors under the published names.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "detector/config.h"
#include "graph/tensor.h"
#include "model_io/convert/caffe_file.h"
#include "model_io/convert/names.h"

namespace frcnn {

struct SourceTensor {
  std::string file;                 // where it comes from
  std::string source_name;          // "conv1_1 blob 0", or the name in the file
  std::string name;                 // "conv1_1.weight"
  DType dtype = DType::f32;         // f32, f16, bf16 or f64
  DType source_dtype = DType::f32;  // before it was computed with; else the same
  std::vector<std::int64_t> shape;  // Caffe's leading ones removed where they carry nothing
  const void* data = nullptr;       // any alignment
  std::size_t bytes = 0;
  std::shared_ptr<const void> owner;
};

struct Source {
  std::string path;
  // "caffemodel", "caffemodel (V1 layers)", "safetensors", "frcnn model", "PyTorch (zip)", "PyTorch (without
  // zip)"
  std::string format;
  NameScheme scheme = NameScheme::caffe;     // of the names in the file
  std::vector<SourceTensor> tensors;         // under our names
  std::map<std::string, std::string> facts;  // what a checkpoint says beside its weights: "pooling_mode", ...
  std::vector<std::string> ignored;          // what of it is no weight, one sentence each
  std::optional<CaffeNet> net;               // caffemodel; its blobs are in `tensors`
  std::optional<ModelConfig> config;         // our own model file
};

// Names are translated (names.h); values are as in the file. Throws Error(io), Error(bad_file), or
// Error(unsupported) for a format that is known but not read; each names the file.
Source read_source(const std::string& path);

}  // namespace frcnn
