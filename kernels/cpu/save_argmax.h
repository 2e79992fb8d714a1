// Poolings that also say where their maxima were, for training graphs. The maxima are those of the plain
// forms.
#pragma once

#include "kernels.h"

namespace frcnn::cpu {

Prepared max_pool_with_argmax(const MaxPool& op, const KernelSpec& spec, const Settings& settings);
Prepared roi_pool_with_argmax(const RoiPool& op, const KernelSpec& spec, const Settings& settings);

}  // namespace frcnn::cpu
