#include "runtime/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cpu/parallel.h"
#include "frcnn/error.h"
#include "graph/dtype.h"

namespace frcnn {
namespace {

// The tensor as aligned f32: its own memory where it is that already, `copy` otherwise.
TensorView as_f32(const TensorView& view, std::vector<float>& copy) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(view.data) % alignof(float) == 0;
  if (view.dtype == DType::f32 && aligned) return view;
  copy.resize(static_cast<std::size_t>(view.shape.elements()));
  if (view.dtype == DType::f32)
    std::memcpy(copy.data(), view.data, view.bytes());
  else
    to_f32(view, copy.data());
  return {copy.data(), view.shape, DType::f32};
}

bool all_finite(const float* values, std::int64_t count) {
  unsigned bad = 0;                                        // no way out of the loop, so that it becomes vectors
  for (std::int64_t i = 0; i < count; ++i) bad |= (std::bit_cast<std::uint32_t>(values[i]) & 0x7F800000u) == 0x7F800000u;
  return bad == 0;
}

// A NaN in a layer before a ReLU would vanish there without a trace, so it is found here, once per weight.
void check_finite(const TensorView& published, const std::string& name, const std::string& source, int threads) {
  constexpr std::int64_t block = 1 << 16;
  const std::int64_t count = published.shape.elements(), blocks = (count + block - 1) / block;
  const float* values = published.as<const float>();
  std::atomic<bool> finite = true;
  cpu::parallel_for(blocks, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end && finite; ++b)
      if (!all_finite(values + b * block, std::min(block, count - b * block))) finite = false;
  });
  if (finite) return;
  const float* bad = std::find_if(values, values + count, [](float x) { return !std::isfinite(x); });
  throw Error(ErrorCode::numeric, fmt::format("{}: {}: {} at element {} of {}; a weight must be finite", source, name, *bad,
                                              bad - values, to_string(published.shape)));
}

}  // namespace

Weights::Weights(std::map<std::string, Weight> tensors, std::string source)
    : tensors_(std::move(tensors)), source_(std::move(source)) {}

const Weight& Weights::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    throw Error(ErrorCode::bad_model, fmt::format("{}: the model has no tensor {}", source_, name));
  return found->second;
}

std::shared_ptr<const void> Weights::packed(const std::string& name, const WeightPacking& packing, Device& device) const {
  const Weight& weight = at(name);
  const std::string key = fmt::format("{}\n{}\n{}", device.name(), name, packing.layout);
  const std::lock_guard lock(mutex_);
  if (const auto found = packed_.find(key); found != packed_.end()) return found->second.data;

  std::shared_ptr<void> memory = allocate(device, packing.bytes);
  {
    std::vector<float> converted;
    const TensorView published = as_f32(weight.view, converted);
    check_finite(published, name, source_, device.host_threads());
    if (device.is_host()) {
      packing.pack(published, memory.get());
    } else {
      std::vector<std::byte> host(packing.bytes);
      packing.pack(published, host.data());
      device.upload(memory.get(), host.data(), host.size());
    }
  }
  if (weight.release_pages) weight.release_pages();
  packed_.emplace(key, PackedEntry{memory, packing.bytes});
  return memory;
}

bool Weights::release_unused(const std::string& device) const {
  const std::string prefix = device + "\n";
  return std::erase_if(packed_, [&](const auto& entry) {
           return entry.first.rfind(prefix, 0) == 0 && entry.second.data.use_count() == 1;
         }) > 0;
}

std::shared_ptr<void> Weights::allocate(Device& device, std::size_t bytes) const {
  try {
    return device.allocate(bytes);
  } catch (const Error& error) {
    const std::lock_guard lock(mutex_);                    // nobody takes an unused one into use meanwhile
    if (error.code() != ErrorCode::out_of_memory || !release_unused(device.name())) throw;
  }
  return device.allocate(bytes);
}

std::size_t Weights::packed_bytes() const {
  const std::lock_guard lock(mutex_);
  std::size_t bytes = 0;
  for (const auto& [key, entry] : packed_) bytes += entry.bytes;
  return bytes;
}

}  // namespace frcnn
