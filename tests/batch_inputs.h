// What a detector feeds a program of build_graph() with for images of the host, done by hand.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <vector>

#include "detector/faster_rcnn.h"
#include "detector/image_view.h"
#include "detector/map_sizes.h"
#include "runtime/session.h"

namespace frcnn::test {

struct BatchInputs {
  GraphRequest request;
  std::vector<SourceImage> images;
  std::vector<std::array<float, 3>> im_info;
  std::vector<std::array<float, 2>> image_size;
  std::vector<std::array<std::int32_t, 4>> map_sizes;

  BatchInputs(const Model& model, std::span<const ImageView> views) {
    const MapSizes maps(model);
    request.batch = static_cast<std::int64_t>(views.size());
    for (const ImageView& view : views) {
      const double scale = image_scale(model.config, view.height, view.width);
      SourceImage& image = images.emplace_back();
      describe_in_place(view, image);
      image.inverse_scale = 1.0 / scale;
      image.out_height = static_cast<std::int32_t>(std::nearbyint(view.height * scale));
      image.out_width = static_cast<std::int32_t>(std::nearbyint(view.width * scale));
      im_info.push_back({static_cast<float>(image.out_height), static_cast<float>(image.out_width),
                         static_cast<float>(scale)});
      image_size.push_back({static_cast<float>(view.height), static_cast<float>(view.width)});
      map_sizes.push_back(maps.of(image.out_height, image.out_width));
      request.height = std::max<std::int64_t>(request.height, image.out_height);
      request.width = std::max<std::int64_t>(request.width, image.out_width);
    }
  }

  void feed(Executable& executable) const {
    executable.set("images", images.data(), images.size() * sizeof images[0]);
    executable.set("im_info", im_info.data(), im_info.size() * sizeof im_info[0]);
    executable.set("image_size", image_size.data(), image_size.size() * sizeof image_size[0]);
    executable.set("map_sizes", map_sizes.data(), map_sizes.size() * sizeof map_sizes[0]);
  }
};

}  // namespace frcnn::test
