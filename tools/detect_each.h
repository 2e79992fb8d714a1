// Detection in several images at once, for commands that go on after one that fails.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "detector/detector.h"
#include "frcnn/error.h"
#include "model_io/image_file.h"

namespace frcnn {

struct Attempt {
  std::optional<DetectResult> result;
  std::optional<Error> error;  // where there is no result
};

// One attempt for each image, all in one batch. Where the batch fails, the images are tried one by one, so
// that only those at fault fail and the message is of one image; if it is not of an image (the memory is too
// small for them together), a note on standard error says why.
std::vector<Attempt> detect_each(Detector& detector, std::span<const Image> images,
                                 const DetectRequest& request);

// `message` with the name of the image in front, unless it is in it.
std::string named_after(const std::string& image, const std::string& message);

}  // namespace frcnn
