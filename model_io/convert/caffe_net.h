// What a Caffe network says about the detector in it: topology, anchors, RoI pooling, dropout.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "detector/config.h"
#include "model_io/convert/caffe_file.h"

namespace frcnn {

// Sizes that a layer's parameters promise; the weights must agree with them.
struct PromisedSize {
  std::string layer;
  std::int64_t outputs = 0;                  // 0: not given
  std::array<std::int64_t, 2> kernel{0, 0};  // 0: not given, or fully connected
};

struct RpnFacts {
  std::string conv, top;
};

struct AnchorFacts {
  double feat_stride = 16, base_size = 16;
  std::vector<double> scales, ratios;
};

struct RoiFacts {
  std::string top;
  int pooled_h = 0, pooled_w = 0;  // 0: the file has no parameters
  double spatial_scale = 0;
};

struct NetFacts {
  std::string source;  // the file, for messages
  std::string name;
  bool detector = false;                // has RPN or detection head layers
  bool has_parameters = true;           // false: layers carry names, types and blobs only
  std::vector<BackboneLayer> backbone;  // without parameters: kinds, names and ReLUs only
  std::vector<PromisedSize> sizes;
  std::vector<std::string> without_bias;  // layers with bias_term: false
  std::optional<RpnFacts> rpn;
  std::optional<AnchorFacts> anchors;
  std::optional<RoiFacts> roi;
  std::optional<double> dropout_test_scale;
};

// Follows the network from the RPN (or from the first fully connected layer) back to its input, and the
// detection head back to the RoI pooling. Data, loss and target layers play no part. Throws
// Error(unsupported) that names the layer which the engine could not run (branches, groups, dilation, average
// pooling, other layer types), Error(bad_file) for parameters that make no sense.
NetFacts facts_of(const CaffeNet& net, const std::string& source);

}  // namespace frcnn
