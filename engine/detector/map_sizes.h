// How large an image's own maps are, in a batch whose maps are larger.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "detector/model.h"

namespace frcnn {

// Follows the layers of a model from the size of an input to that of the features' map and of the RPN's.
class MapSizes {
 public:
  // Throws Error(bad_model) naming a weight that is missing.
  explicit MapSizes(const Model& model);

  // A record of the input map_sizes (graph/ops.h): rows and columns of the features' map, then of the RPN's.
  // Not positive where an input of `height` rows and `width` columns is too small for a layer.
  std::array<std::int32_t, 4> of(std::int64_t height, std::int64_t width) const;

 private:
  struct Layer {
    std::int64_t kernel_h, kernel_w, stride, pad;  // of a convolution
    bool pools;
    MaxPool pool;
  };
  std::vector<Layer> backbone_, rpn_;
};

}  // namespace frcnn
