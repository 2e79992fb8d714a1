// PyTorch's checkpoint files: the zip archives of today's torch.save, and the older form without a zip.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/tensor.h"

namespace frcnn {

struct TorchFileTensor {
  std::string name;          // in the state dict
  DType dtype = DType::f32;  // f32, f16, bf16 or f64
  std::vector<std::int64_t> shape;
  const void* data = nullptr;  // row-major, any alignment; lives as long as `owner`
  std::size_t bytes = 0;
  std::shared_ptr<const void> owner;  // null where the data lies in the file's own bytes
};

struct TorchFile {
  bool zip = false;
  std::vector<TorchFileTensor> tensors;      // of the one state dict, in its order
  std::map<std::string, std::string> facts;  // texts, numbers and truths beside it, such as "pooling_mode"
  std::vector<std::string> ignored;          // what is no weight, one sentence each
};

bool looks_like_torch_file(std::span<const std::byte> bytes);

// The tensors of the state dict in the file: what its root holds under "model", "state_dict" and the like, at
// any depth to 8, else the root itself, else its only dictionary with tensors. A key longer than 1024 bytes
// or given twice is refused. The prefix "module." of DataParallel is removed. Strided tensors are copied into
// row-major order, others stay where they are; storages are read only if a tensor of the state dict uses
// them. `bytes` must outlive those tensors of the result that have no owner. Throws Error(bad_file) or
// Error(unsupported) with `source` and the place; see pickle.h for what is refused. Memory stays within a
// small multiple of the file's size.
TorchFile read_torch_file(std::span<const std::byte> bytes, const std::string& source);

}  // namespace frcnn
