// A program of somebody else: a model, a picture, boxes.
#include <cstdio>
#include <exception>

#include "detector/detector.h"
#include "model_io/image_file.h"
#include "model_io/model_file.h"

int main(int argc, char** argv) try {
  if (argc != 3) return 2;
  frcnn::Detector detector(frcnn::load_model(argv[1]), {});
  const frcnn::Image image = frcnn::read_image(argv[2]);
  const frcnn::DetectResult result = detector.detect({image.bgr.data(), image.width, image.height});
  for (const frcnn::Detection& d : result.detections)
    std::printf("%s %.3f at %.1f,%.1f\n", detector.model().config.classes[static_cast<std::size_t>(d.class_id)].c_str(),
                static_cast<double>(d.score), static_cast<double>(d.box[0]), static_cast<double>(d.box[1]));
  return result.detections.empty() ? 1 : 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "embed: %s\n", error.what());
  return 1;
}
