#include "graph/tensor.h"

#include <fmt/format.h>

#include "frcnn/error.h"

namespace frcnn {

std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::u8: return 1;
    case DType::f16:
    case DType::bf16: return 2;
    case DType::f32:
    case DType::i32: return 4;
    case DType::f64:
    case DType::i64: return 8;
  }
  return 0;
}

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::u8: return "u8";
    case DType::f16: return "f16";
    case DType::bf16: return "bf16";
    case DType::f32: return "f32";
    case DType::f64: return "f64";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
  }
  return "?";
}

Shape::Shape(std::initializer_list<std::int64_t> dims) {
  if (dims.size() > dim.size())
    throw Error(ErrorCode::invalid_argument, fmt::format("a shape has at most 4 dimensions, not {}", dims.size()));
  for (std::int64_t d : dims) dim[static_cast<std::size_t>(rank++)] = d;
}

std::int64_t Shape::elements() const {
  std::int64_t n = 1;
  for (int i = 0; i < rank; ++i) n *= (*this)[i];
  return n;
}

std::int64_t Shape::row() const {
  std::int64_t n = 1;
  for (int i = 1; i < rank; ++i) n *= (*this)[i];
  return n;
}

std::string to_string(const Shape& shape) {
  std::string text;
  for (int i = 0; i < shape.rank; ++i) text += fmt::format("{}{}", i ? "x" : "", shape[i]);
  return text.empty() ? "scalar" : text;
}

}  // namespace frcnn
