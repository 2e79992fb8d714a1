// Tensors that outlive the programs which read and write them: weights in training, their gradients and
// velocities.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "graph/tensor.h"
#include "runtime/device.h"

namespace frcnn {

// On one device. Programs hold addresses into it, so it must outlive them; nothing in it moves. For one
// thread at a time.
class States {
 public:
  explicit States(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  // Allocates, zero-filled. Throws Error(out_of_memory), Error(invalid_argument) if the name is taken.
  void add(const std::string& name, const TensorSpec& spec);
  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  TensorView view(const std::string& name) const;  // throws Error(invalid_argument) naming it
  void set(const std::string& name, const void* host,
           std::size_t bytes);  // `bytes` is checked against the size
  void get(const std::string& name, void* host, std::size_t bytes) const;
  std::size_t bytes() const { return bytes_; }

 private:
  struct Tensor {
    std::shared_ptr<void> memory;
    TensorSpec spec;
  };
  const Tensor& at(const std::string& name) const;
  std::shared_ptr<Device> device_;
  std::map<std::string, Tensor> tensors_;
  std::size_t bytes_ = 0;
};

}  // namespace frcnn
