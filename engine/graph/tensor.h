// Shapes, element types and views: what every other part of the engine passes around.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace frcnn {

enum class DType : std::uint8_t { f32, f16, bf16, f64, i32, i64, u8 };

std::size_t size_of(DType dtype);             // bytes per element
std::string_view name_of(DType dtype);        // "f32", "bf16", ...

// Up to four dimensions, outermost first. Activations are N,H,W,C or R,C; convolution weights O,I,H,W;
// fully connected weights O,I.
struct Shape {
  int rank = 0;
  std::array<std::int64_t, 4> dim{};

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);
  std::int64_t operator[](int i) const { return dim[static_cast<std::size_t>(i)]; }
  std::int64_t& operator[](int i) { return dim[static_cast<std::size_t>(i)]; }
  std::int64_t elements() const;              // product of the dimensions; 1 for rank 0
  std::int64_t row() const;                   // elements below the first dimension
  bool operator==(const Shape&) const = default;
};

std::string to_string(const Shape& shape);    // "1x38x63x512"

struct TensorSpec {
  Shape shape;
  DType dtype = DType::f32;
  std::size_t bytes() const { return static_cast<std::size_t>(shape.elements()) * size_of(dtype); }
  bool operator==(const TensorSpec&) const = default;
};

// A packed (contiguous, row-major) tensor that somebody else owns.
struct TensorView {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::f32;

  std::size_t bytes() const { return static_cast<std::size_t>(shape.elements()) * size_of(dtype); }
  TensorSpec spec() const { return {shape, dtype}; }
  template <typename T>
  T* as() const { return static_cast<T*>(data); }
};

}  // namespace frcnn
