#include "training/evaluate.h"

#include <algorithm>
#include <map>
#include <utility>

#include "detector/detector.h"
#include "frcnn/error.h"
#include "model_io/image_file.h"
#include "training/train_dataset.h"

namespace frcnn {
namespace {

// What the device must have room for; `unknown` where an annotation does not state its image's size.
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
                                       const VocDataset& dataset, const EvaluateOptions& options) {
  DetectorOptions detector_options;
  if (!device->is_host())
    detector_options.max_image_pixels = largest_image(dataset, detector_options.max_image_pixels);
  Detector detector(model, std::move(device), detector_options);
  const std::vector<std::string>& classes = model->config.classes;
  VocDataset scored;
  std::vector<std::vector<NamedDetection>> detections;
  for (const VocAnnotation& entry : dataset.images) {
    if (options.go_on && !options.go_on(scored.images.size(), dataset.images.size())) return std::nullopt;
    std::string path = entry.path;
    Image image;
    try {
      path = voc_image_path(dataset.directory, entry.id);
      image = read_image(path);
    } catch (const Error& error) {
      if (!options.skipped) throw broken_image(error);
      options.skipped(error.what());
      continue;
    }
    scored.images.push_back(entry);
    detections.emplace_back();
    try {
      for (const Detection& one : detector.detect({image.bgr.data(), image.width, image.height}).detections)
        detections.back().push_back({classes[static_cast<std::size_t>(one.class_id)], one.score, one.box});
    } catch (const Error& error) {
      throw Error(error.code(), path + ": " + error.what());
    }
  }
  const std::vector<std::string> names(classes.begin() + 1, classes.end());
  return voc_score(scored, names, detections, options.metric);
}

std::size_t evaluation_bytes(const ModelConfig& model, const HostTensors& weights,
                             std::shared_ptr<Device> device, const VocDataset& dataset) {
  std::map<std::string, Weight> views;
  std::size_t bytes = 0;
  for (const auto& [name, tensor] : weights) {
    auto* const data = const_cast<float*>(tensor.data.data());  // weights are only read
    views.emplace(name, Weight{{data, tensor.shape, DType::f32}, nullptr, {}});
    bytes += tensor.data.size() * sizeof(float);
  }
  DetectorOptions options;
  options.max_image_pixels = largest_image(dataset, options.max_image_pixels);
  Detector detector(std::make_shared<const Model>(model, std::move(views), "the new model"),
                    std::move(device), options);
  const SessionStats stats = detector.stats();
  return stats.arena_bytes + stats.pixel_bytes + bytes;
}

}  // namespace frcnn
