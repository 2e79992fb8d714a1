// Tensors of layers.safetensors as the kernels take them.
#pragma once

#include <string>
#include <vector>

#include "golden/golden.h"
#include "ops/op_runner.h"

namespace frcnn::golden {

inline bool has(const SafetensorsFile& file, const std::string& name) { return file.find(name) != nullptr; }

// A stored tensor with rank 4 moved to N,H,W,C.
inline test::Tensor activation(const SafetensorsFile& file, const std::string& name) {
  const auto& d = tensor(file, name).shape;
  if (d.size() == 4) return test::f32({d[0], d[2], d[3], d[1]}, nhwc(file, name));
  REQUIRE(d.size() == 2);
  return test::f32({d[0], d[1]}, values(file, name));
}

inline test::Tensor as_stored(const SafetensorsFile& file, const std::string& name) {
  Shape shape;
  for (const std::int64_t d : tensor(file, name).shape) shape.dim[static_cast<std::size_t>(shape.rank++)] = d;
  return test::f32(shape, values(file, name));
}

inline std::vector<float> vector_of(const test::Tensor& tensor) {
  const auto all = tensor.as<float>();
  return {all.begin(), all.end()};
}

inline int integer(const nlohmann::json& geometry, const char* key) { return geometry.at(key).get<int>(); }

}  // namespace frcnn::golden
