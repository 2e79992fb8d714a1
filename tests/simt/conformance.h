// What the emulator and a GPU must agree on: every emulated instruction on inputs that no definition was
// written down for. The emulator's answers are recorded in a file; where there is a GPU, the same launches
// are made on it and compared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model_io/safetensors.h"

namespace frcnn::simt_test {

struct Sample {
  enum class Type : std::uint8_t { f32, f64, u64, u32, u16, u8 };
  std::string name;
  Type type = Type::u32;
  std::vector<std::byte> result;
  // How far two results may lie apart: in units of the last place, and for f32 absolutely, by element (empty:
  // nothing). Without either, the same bits; two NaNs are always alike.
  int ulps = 0;
  std::vector<float> allowed;
};

// Makes the launches; the same inputs everywhere.
std::vector<Sample> take_samples();

void write_samples(const std::string& path, std::span<const Sample> samples);
// Throws Error(bad_file) for a file of something else.
std::vector<Sample> read_samples(const std::string& path);

// Elements that differ by more than allowed; the first as a sentence; the largest distance, in units of the
// last place or as a fraction of what is allowed.
struct Comparison {
  std::size_t elements = 0, differing = 0;
  std::string first;
  double worst = 0;
};
Comparison compare(const Sample& got, const Sample& expected);

}  // namespace frcnn::simt_test
