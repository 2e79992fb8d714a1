// From a model's configuration to the graph of one size of its input.
#pragma once

#include <cstdint>

#include "detector/model.h"
#include "graph/graph.h"

namespace frcnn {

struct GraphRequest {
  enum class Source : std::uint8_t {
    image,                                     // input `images` u8 [N,64] (SourceImage)
    blob,                                      // input `data` f32 [N,H,W,3]
  };
  Source source = Source::image;
  std::int64_t batch = 1, height = 0, width = 0;   // of the network's input, the images scaled and padded
  std::int64_t external_rois = 0;              // > 0: no RPN; inputs `rois` [N*external_rois,5], `roi_scores`,
                                               // `rois_count` i32 [N]
};

// Inputs of a detector besides: `im_info` [N,3], `image_size` [N,2] = height, width of the original, `map_sizes`
// i32 [N,4] (MapSizes). Values carry the published tops' names; outputs are `detections` [N,D,6], `detections_count` i32 [N], `rois`,
// `roi_scores`, `rois_count` i32 [N], `rpn_nonfinite` and `head_nonfinite` i32 [1]. A backbone model's graph ends
// at its last layer. Throws Error(bad_model) naming the layer or weight that does not fit.
Graph build_graph(const Model& model, const GraphRequest& request);

// SPEC section 1.3: network pixels per original pixel.
double image_scale(const ModelConfig& config, std::int64_t height, std::int64_t width);

}  // namespace frcnn
