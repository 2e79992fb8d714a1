// From a model's configuration to the graph of one image size.
#pragma once

#include <cstdint>

#include "detector/model.h"
#include "graph/graph.h"

namespace frcnn {

struct GraphRequest {
  enum class Source : std::uint8_t {
    image,                                     // inputs `image` u8 [N,H,W,3] (nv12: [N,H+ceil(H/2),2*ceil(W/2)]),
                                               // `im_info`, `image_size`
    blob,                                      // inputs `data` f32 [N,H,W,3], `im_info`, `image_size`
  };
  Source source = Source::image;
  std::int64_t batch = 1, height = 0, width = 0;   // of the image or blob
  double scale = 1.0;                          // source image: network pixels per original pixel
  std::int64_t external_rois = 0;              // > 0: no RPN; inputs `rois` [N*external_rois,5], `roi_scores`,
                                               // `rois_count` i32 [N]
  PixelFormat format = PixelFormat::bgr;       // source image
};

// Values carry the published tops' names; outputs are `detections` [N,D,6], `detections_count` i32 [N], `rois`,
// `roi_scores`, `rois_count` i32 [N], `rpn_nonfinite` and `head_nonfinite` i32 [1]. A backbone model's graph ends
// at its last layer. Throws Error(bad_model) naming the layer or weight that does not fit.
Graph build_graph(const Model& model, const GraphRequest& request);

// SPEC section 1.3: network pixels per original pixel.
double image_scale(const ModelConfig& config, std::int64_t height, std::int64_t width);

}  // namespace frcnn
