#include "detect_each.h"

#include <fmt/format.h>

#include <cstdio>
#include <utility>

namespace frcnn {

std::vector<Attempt> detect_each(Detector& detector, std::span<const Image> images,
                                 const DetectRequest& request) {
  std::vector<ImageView> views;
  for (const Image& image : images) views.push_back({image.bgr.data(), image.width, image.height});
  std::vector<Attempt> attempts(images.size());
  const auto attempt = [&](std::size_t first, std::size_t count, const DetectRequest& wanted) {
    std::vector<DetectResult> results = detector.detect(std::span(views).subspan(first, count), wanted);
    for (std::size_t i = 0; i < count; ++i) attempts[first + i].result = std::move(results[i]);
  };
  if (images.size() > 1) {
    try {
      attempt(0, images.size(), request);
      return attempts;
    } catch (const Error& error) {  // each one's own follows
      const bool of_an_image =
          error.code() == ErrorCode::invalid_argument || error.code() == ErrorCode::numeric;
      if (!of_an_image)
        fmt::print(stderr, "frcnn: note: {} images at once failed ({}); trying them one by one\n",
                   images.size(), error.what());
    }
  }
  for (std::size_t n = 0; n < images.size(); ++n) {
    DetectRequest one = request;
    if (one.proposals) one.proposals += n;
    try {
      attempt(n, 1, one);
    } catch (const Error& error) {
      attempts[n].error = error;
    }
  }
  return attempts;
}

std::string named_after(const std::string& image, const std::string& message) {
  return message.find(image) != std::string::npos ? message : image + ": " + message;
}

}  // namespace frcnn
