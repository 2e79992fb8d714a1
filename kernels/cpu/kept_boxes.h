// Greedy suppression's list of survivors, laid out so that one candidate is compared with many of them at
// once.
#pragma once

#include <cstdint>
#include <limits>

#include "box_math.h"
#include "carve.h"
#include "graph/ops.h"

namespace frcnn::cpu {

// Arrays of coordinates in blocks of `lanes`; the unused lanes of the last block have area NaN, whose overlap
// passes no threshold, so every comparison runs over whole blocks. The memory is the caller's.
class KeptBoxes {
 public:
  KeptBoxes(Carver& memory, std::int64_t capacity) {
    const std::int64_t padded = (capacity + lanes - 1) / lanes * lanes;
    for (float** array : {&x1_, &y1_, &x2_, &y2_, &area_}) *array = memory.take<float>(padded);
  }

  void clear() { size_ = 0; }
  std::int64_t size() const { return size_; }

  // The caller keeps size() below the capacity.
  void add(const Box& box) {
    if (size_ % lanes == 0) {
      for (std::int64_t i = size_; i < size_ + lanes; ++i) {
        x1_[i] = y1_[i] = x2_[i] = y2_[i] = 0;
        area_[i] = std::numeric_limits<float>::quiet_NaN();
      }
    }
    x1_[size_] = box.x1;
    y1_[size_] = box.y1;
    x2_[size_] = box.x2;
    y2_[size_] = box.y2;
    area_[size_] = frcnn::area(box);
    ++size_;
  }

  // Whether one of the kept boxes overlaps `box` by more than (or, at_or_above, by as much as) the threshold.
  bool suppress(const Box& box, float threshold, Suppress rule) const {
    return rule == Suppress::above ? any<false>(box, threshold) : any<true>(box, threshold);
  }

 private:
  static constexpr std::int64_t lanes = 16;

  template <bool or_equal>
  bool any(const Box& box, float threshold) const {
    const float box_area = frcnn::area(box);
    for (std::int64_t block = 0; block < size_; block += lanes) {
      int hits = 0;
      for (std::int64_t i = block; i < block + lanes; ++i) {
        const float overlap = iou({x1_[i], y1_[i], x2_[i], y2_[i]}, area_[i], box, box_area);
        hits |= or_equal ? overlap >= threshold : overlap > threshold;
      }
      if (hits) return true;
    }
    return false;
  }

  float *x1_ = nullptr, *y1_ = nullptr, *x2_ = nullptr, *y2_ = nullptr, *area_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace frcnn::cpu
