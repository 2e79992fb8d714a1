// What a training run is: a detector to be made, the data it learns from and how it learns. Everything that
// the trained weights depend on besides the images themselves is in here.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "training/train_config.h"

namespace frcnn {

// The detector that a run makes. A width of 0 (or no widths) means the architecture's own.
struct ArchitectureConfig {
  // "vgg11", "vgg13", "vgg16", "vgg19", "zf", "zf-small" (architecture_names()), or "init": layers, widths
  // and conventions of the model that training starts from.
  std::string arch = "vgg16";
  std::vector<std::int64_t> conv_widths;  // of every convolution of the backbone, or of every VGG group
  std::int64_t rpn_width = 0, fc6_width = 0, fc7_width = 0;
  // Conventions that differ from the architecture's: set_config's keys (docs/model_format.md) and values.
  std::map<std::string, std::string> set;
};

enum class BadBoxes : std::uint8_t {
  drop,    // inverted and outlying boxes and those without extent are left out, with a warning
  repair,  // corners swapped, cut off at the image's border; without extent: left out
  error,
};
enum class BrokenImages : std::uint8_t { fatal, skip };
enum class UnknownClasses : std::uint8_t { error, ignore };

struct DataConfig {
  bool use_difficult = false;              // learn objects that are marked difficult
  bool use_images_without_objects = true;  // as background
  // Pixels of the image; objects with a smaller side are left out. Above 1 a box of a single pixel in some
  // direction is a bad one: `bad_boxes` decides.
  double min_box_side = 2;
  BadBoxes bad_boxes = BadBoxes::drop;
  BrokenImages broken_images = BrokenImages::fatal;
  UnknownClasses unknown_classes = UnknownClasses::error;
};

struct RunConfig {
  ArchitectureConfig model;
  DataConfig data;
  TrainConfig train;
};

}  // namespace frcnn
