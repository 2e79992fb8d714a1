// Random numbers of a training run outside its kernels: drawn from a counter, so that they depend on what
// they are for and not on who asks first, and from plain arithmetic, so that every machine draws the same
// bits.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "philox.h"

namespace frcnn {

// Uniform in [0, 1): 53 bits of two words.
inline double unit_interval(std::uint32_t high, std::uint32_t low) {
  return static_cast<double>((std::uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}

// Draws for one thing, e.g. image `index` of a run.
class RandomDraws {
 public:
  RandomDraws(std::uint64_t seed, RandomStream stream, std::uint64_t index)
      : seed_(seed), stream_(stream), index_(index) {}
  double unit();  // in [0, 1)
  double between(double low, double high) { return low + (high - low) * unit(); }
  bool chance() { return unit() < 0.5; }
  std::uint64_t below(std::uint64_t bound);  // uniform in [0, bound), exactly

 private:
  std::uint64_t word64();
  std::uint64_t seed_;
  RandomStream stream_;
  std::uint64_t index_;
  std::uint32_t drawn_ = 0;
};

// 0 ... count-1 in an order that depends on seed and index alone.
std::vector<std::uint32_t> shuffled(std::size_t count, std::uint64_t seed, std::uint64_t index);

// values[i] = float(std * the i-th Gaussian of tensor `index`), by Box and Muller in double.
void fill_gaussian(std::span<float> values, double std, std::uint64_t seed, std::uint32_t index);

// Two independent standard Gaussians from two numbers in [0, 1). Only IEEE additions, products, quotients and
// square roots: mathematical libraries differ in the last bit.
std::array<double, 2> box_muller(double u, double v);

}  // namespace frcnn
