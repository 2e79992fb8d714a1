// Weights changed so that the network computes the same from other numbers.
#pragma once

#include <array>
#include <span>

#include "model_io/convert/source.h"

namespace frcnn {

// What torchvision's classifiers were trained on: red, green, blue in 0..1, minus `mean`, over `std`.
struct TorchvisionInput {
  std::array<double, 3> mean{0.485, 0.456, 0.406}, std{0.229, 0.224, 0.225};
  // 255 times the mean in blue, green, red: what to subtract from pixels before the folded convolution.
  std::array<double, 3> pixel_mean{103.53, 116.28, 123.675};
};

// A first convolution [O, 3, KH, KW] of that input becomes one of blue, green, red in 0..255 minus
// pixel_mean: channels swap, and channel c's weights are divided by 255 std[c], in double and rounded once.
// Its bias stays, and so does what zero padding means, the mean: the result is the same function, also at the
// border. The tensor becomes f32. Throws Error(bad_model) naming it for another shape.
void fold_input(SourceTensor& weight, const TorchvisionInput& input);

// Row r of a weight [R, ...] or bias [R] times factors[r % factors.size()], in double and rounded once.
// Becomes f32.
void scale_rows(SourceTensor& tensor, std::span<const double> factors);

}  // namespace frcnn
