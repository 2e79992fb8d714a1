// A model's weights as published, and the copies that devices have packed of them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "graph/tensor.h"
#include "runtime/device.h"

namespace frcnn {

// One weight as the file has it: f32, f16 or bf16 in the published layout (OIHW, OI; fc6 columns in C,H,W order).
struct Weight {
  TensorView view;
  std::shared_ptr<const void> owner;          // keeps view.data valid
  std::function<void()> release_pages;        // may be empty: gives mapped pages back; reading again maps them anew
};

// Immutable but for the cache of packed weights; safe to share between sessions and threads.
class Weights {
 public:
  Weights(std::map<std::string, Weight> tensors, std::string source);

  const std::map<std::string, Weight>& all() const { return tensors_; }
  const Weight& at(const std::string& name) const;         // throws Error(bad_model) naming it and the file
  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  const std::string& source() const { return source_; }    // the file's name, for messages

  // The device's copy of `name` in `packing`'s layout, packed at the first request and shared from then on.
  // Throws Error(numeric) naming the weight when it holds a NaN or an infinity.
  std::shared_ptr<const void> packed(const std::string& name, const WeightPacking& packing, Device& device) const;
  std::size_t packed_bytes() const;                        // over all devices and layouts
  // Device memory of `bytes`, for which packed copies that no session holds any more make room where there is none.
  // Throws Error(out_of_memory).
  std::shared_ptr<void> allocate(Device& device, std::size_t bytes) const;

 private:
  std::map<std::string, Weight> tensors_;
  std::string source_;
  mutable std::recursive_mutex mutex_;        // packing allocates
  bool release_unused(const std::string& device) const;    // whether there was any; under the lock
  struct PackedEntry { std::shared_ptr<const void> data; std::size_t bytes; };
  mutable std::map<std::string, PackedEntry> packed_;      // by device, name and layout
};

}  // namespace frcnn
