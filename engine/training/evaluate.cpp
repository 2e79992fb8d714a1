#include "training/evaluate.h"

#include <algorithm>

#include "detector/detector.h"
#include "frcnn/error.h"
#include "model_io/image_file.h"

namespace frcnn {
namespace {

// What a device must have room for; `unknown` where an annotation does not state its image's size.
std::int64_t largest_image(const VocDataset& dataset, std::int64_t unknown) {
  std::int64_t pixels = 1;
  for (const VocAnnotation& image : dataset.images) {
    if (image.width < 1 || image.height < 1) return unknown;
    pixels = std::max(pixels, std::int64_t{image.width} * image.height);
  }
  return pixels;
}

}  // namespace

std::optional<VocScore> evaluate_model(std::shared_ptr<const Model> model, std::shared_ptr<Device> device,
                                       const VocDataset& dataset, VocMetric metric,
                                       const std::function<bool(std::size_t, std::size_t)>& go_on) {
  DetectorOptions options;
  if (!device->is_host()) options.max_image_pixels = largest_image(dataset, options.max_image_pixels);
  Detector detector(model, std::move(device), options);
  const std::vector<std::string>& classes = model->config.classes;
  std::vector<std::vector<NamedDetection>> detections(dataset.images.size());
  for (std::size_t i = 0; i < dataset.images.size(); ++i) {
    if (go_on && !go_on(i, dataset.images.size())) return std::nullopt;
    const std::string path = voc_image_path(dataset.directory, dataset.images[i].id);
    const Image image = read_image(path);
    try {
      for (const Detection& one : detector.detect({image.bgr.data(), image.width, image.height}).detections)
        detections[i].push_back({classes[static_cast<std::size_t>(one.class_id)], one.score, one.box});
    } catch (const Error& error) {
      throw Error(error.code(), path + ": " + error.what());
    }
  }
  const std::vector<std::string> scored(classes.begin() + 1, classes.end());
  return voc_score(dataset, scored, detections, metric);
}

}  // namespace frcnn
