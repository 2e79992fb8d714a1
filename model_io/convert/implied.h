// What the names and shapes of a model's tensors say where nothing else does.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "detector/published.h"

namespace frcnn {

using TensorShapes = std::map<std::string, std::vector<std::int64_t>>;  // by our names

struct ImpliedTopology {
  std::string name;  // "VGG-16", "ZF"
  std::vector<BackboneLayer> backbone;
  std::string roi_pool;  // top
  int pooled = 7;        // cells per side of the published detectors
  double dropout_test_scale = 1;
};

// conv1_1, conv1_2, conv2_1, ... are VGG of the depth that the names show: 3x3, stride 1, pad 1, a 2x2 pool
// after each group but the last. conv1 ... conv5 with kernels 7, 5, 3, 3, 3 are ZF. Nothing for other names
// or kernels. Pools round up as Caffe's do, or down as PyTorch's.
std::optional<ImpliedTopology> topology_of(const TensorShapes& shapes, Rounding pools = Rounding::ceil);

// A model that was published with weights of exactly these shapes, and what it was published with.
struct PublishedModel {
  std::string name;                                  // "VGG-16 of PASCAL VOC"
  std::vector<double> anchor_scales, anchor_ratios;  // empty for a backbone
  std::vector<std::string> classes;                  // with the background; empty for a backbone
};
std::optional<PublishedModel> published_model(const TensorShapes& shapes);

}  // namespace frcnn
