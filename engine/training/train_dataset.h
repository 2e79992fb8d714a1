// The images and objects that a run learns from, made of annotations.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "frcnn/error.h"
#include "training/run_config.h"
#include "training/train_network.h"
#include "training/voc_dataset.h"

namespace frcnn {

struct TrainEntry {
  std::string name, path, annotation;  // id; image and XML files
  int width = 0, height = 0;
  std::vector<TrainImage::Object> objects;
};

struct TrainDataset {
  std::string directory, set;
  std::vector<std::string> classes;   // the background first
  std::vector<TrainEntry> entries;    // in the order of the image sets
  std::vector<std::string> warnings;  // what was left out or repaired, "FILE:LINE: ..."
  std::int64_t objects = 0;
  std::uint64_t fingerprint = 0;  // of names, sizes, objects and classes, not of pixels
};

// The error of an image that cannot be read, with the way out of it.
Error broken_image(const Error& error);

// Several sets are joined with '+': "train+val". Throws Error(io), Error(bad_file).
VocDataset read_voc_sets(const std::string& directory, const std::string& sets);

// Boxes count from 0 here (SPEC section 11: one less than written, truncated). `classes` empty: the names of
// all objects, in alphabetical order; an object's name is looked up exactly, then without regard to case.
// Images whose annotation does not state their size are decoded. Throws Error(bad_file) or Error(io) naming
// file and line where `config` says that a box, a class or an image is an error, and when no object is left
// to learn.
TrainDataset make_train_dataset(const VocDataset& voc, std::vector<std::string> classes,
                                const DataConfig& config);

}  // namespace frcnn
