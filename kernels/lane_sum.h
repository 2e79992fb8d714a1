// Long sums in one order on every device: item i belongs to lane i % 256, a lane adds its items in order, and
// the lanes are added in halves, 128 to 128, 64 to 64 and so on. On CUDA a lane is a thread of one block.
#pragma once

#include <cstdint>

namespace frcnn {

inline constexpr int sum_lanes = 256;

// Adds up sum_lanes lanes, in place.
inline double add_halves(double* lane) {
  for (int half = sum_lanes / 2; half > 0; half /= 2)
    for (int k = 0; k < half; ++k) lane[k] += lane[k + half];
  return lane[0];
}

class LaneSum {
 public:
  void add(std::int64_t item, double value) { lane_[item % sum_lanes] += value; }
  double total() { return add_halves(lane_); }

 private:
  double lane_[sum_lanes] = {};
};

}  // namespace frcnn
