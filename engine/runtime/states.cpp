#include "runtime/states.h"

#include <fmt/format.h>

#include "frcnn/error.h"

namespace frcnn {

void States::add(const std::string& name, const TensorSpec& spec) {
  if (has(name)) throw Error(ErrorCode::invalid_argument, fmt::format("{}: two states have this name", name));
  std::shared_ptr<void> memory = device_->allocate(spec.bytes());
  device_->fill(memory.get(), 0, spec.bytes());
  tensors_[name] = {std::move(memory), spec};
  bytes_ += spec.bytes();
}

const States::Tensor& States::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: there is no such state", name));
  return found->second;
}

TensorView States::view(const std::string& name) const {
  const Tensor& tensor = at(name);
  return {tensor.memory.get(), tensor.spec.shape, tensor.spec.dtype};
}

void States::set(const std::string& name, const void* host, std::size_t bytes) {
  const TensorView target = view(name);
  if (bytes != target.bytes())
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: expected {} bytes, got {}", name, target.bytes(), bytes));
  device_->upload(target.data, host, bytes);
}

void States::get(const std::string& name, void* host, std::size_t bytes) const {
  const TensorView source = view(name);
  if (bytes != source.bytes())
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: has {} bytes, {} asked for", name, source.bytes(), bytes));
  device_->download(host, source.data, bytes);
}

}  // namespace frcnn
