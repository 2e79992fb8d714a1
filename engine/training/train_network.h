// A detector that learns: forward, loss, backward and update of one model on one device.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "detector/model.h"
#include "graph/tensor.h"
#include "runtime/session.h"
#include "training/train_config.h"

namespace frcnn {

// A tensor of its own, f32, row-major, in the published layout (OIHW, OI, O).
struct HostTensor {
  Shape shape;
  std::vector<float> data;
};
using HostTensors = std::map<std::string, HostTensor>;

// One image with its objects. Boxes are inclusive, counted from 0, in pixels of this image.
struct TrainImage {
  struct Object {
    std::array<float, 4> box{};
    int class_id = 0;  // 1..C-1
  };
  std::string name;  // for messages
  int width = 0, height = 0;
  std::span<const std::uint8_t> bgr;  // packed, 3 * width * height
  std::vector<Object> objects;        // may be empty
};

struct TrainLosses {
  double rpn_cls = 0, rpn_bbox = 0, cls = 0, bbox = 0;
  double total() const { return rpn_cls + rpn_bbox + cls + bbox; }
};

// What the random choices of a step depend on besides the configuration's seed.
struct StepPosition {
  std::int64_t step = 0;   // updates made so far
  std::int64_t image = 0;  // of this step
};

struct UpdateResult {
  double gradient_norm = 0;  // of all gradients together, before clipping
};

struct TrainLimits {  // what memory is planned for; larger images or more boxes are refused
  std::int64_t image_pixels = 32 << 20;  // of an original image
  std::int64_t boxes = 256;              // of one image
};

// For one thread at a time. Memory is planned for the largest image that the model's short_side and long_side
// allow.
class TrainNetwork {
 public:
  // `weights` are in published units; missing ones are an error (engine/training/initial_weights.h makes
  // them). Throws Error(bad_model) or Error(invalid_argument) that names the layer or number, Error(numeric)
  // for a weight that is not finite, Error(out_of_memory), and Error(unsupported) for a GPU of a 16-bit
  // precision. A CPU of precision bf16 multiplies so in the convolutions behind the first one up to the
  // RPN's, heads excepted; maps, weights and gradients stay f32.
  TrainNetwork(const ModelConfig& model, const HostTensors& weights, const TrainConfig& config,
               std::shared_ptr<Device> device, const TrainLimits& limits = {});
  ~TrainNetwork();

  // arena_bytes() + state_bytes() of such a network, without allocating them.
  static std::size_t planned_bytes(const ModelConfig& model, const HostTensors& weights,
                                   const TrainConfig& config, std::shared_ptr<Device> device,
                                   const TrainLimits& limits = {});

  // Forward and backward of one image; gradients are added to those since the last update. Throws
  // Error(numeric) naming the image and the first tensor that holds a NaN or an infinity, and
  // Error(invalid_argument) for an image or box that does not fit; weights are then as before, and what was
  // accumulated since the last update is forgotten.
  TrainLosses accumulate(const TrainImage& image, const StepPosition& position);

  // One step of SGD with the mean of the gradients accumulated since the last one, which it forgets. Throws
  // Error(numeric) naming the parameter whose gradient is not finite, and Error(invalid_argument) when
  // nothing was accumulated; weights are then as before.
  UpdateResult update(double learning_rate, double average_decay);

  // Everything that makes the next step what it is, in training units: weights, velocities and averages,
  // named "conv3_1.weight", "conv3_1.weight@velocity", "conv3_1.weight@average". Exact: restoring gives the
  // same bits.
  HostTensors state() const;
  void restore(
      const HostTensors& state);  // throws Error(invalid_argument) naming what is missing or does not fit

  // A model that can be saved and detects, in published units: the averages where they are kept, else the
  // weights.
  std::shared_ptr<const Model> deploy() const;

  std::size_t arena_bytes() const;  // activations, gradients of activations, workspaces
  std::size_t state_bytes() const;  // weights, gradients, velocities, averages
  SessionStats stats() const;       // of the session in which images and updates run

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace frcnn
