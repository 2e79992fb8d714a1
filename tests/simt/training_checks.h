// A small network to train on two devices side by side, and what has to be equal.
#pragma once

#include "catch.h"
#include "engine/small_training.h"

namespace frcnn::small {

constexpr std::size_t kImagePixels = 150 * 110;

inline TrainLimits limits() { return {kImagePixels, 32}; }

inline ModelConfig model_of(int short_side) {
  ModelConfig model = small_model();
  model.short_side = short_side;
  model.long_side = 2 * short_side;
  return model;
}

// Scores far enough apart that rounding moves no proposal past another.
inline HostTensors spread_weights(const ModelConfig& model) {
  HostTensors weights = random_weights(model, 1);
  for (float& x : weights.at("rpn_cls_score.weight").data) x *= 50;
  for (const char* name : {"rpn_bbox_pred.weight", "cls_score.weight", "bbox_pred.weight"})
    for (float& x : weights.at(name).data) x *= 10;
  return weights;
}

// One image's losses in both networks; returns the wanted ones' sum.
inline double check_losses(TrainNetwork& got_network, TrainNetwork& want_network, const TrainImage& image,
                         const StepPosition& position) {
  const TrainLosses want = want_network.accumulate(image, position), got = got_network.accumulate(image, position);
  CHECK(want.rpn_cls > 0);
  CHECK(want.cls > 0);
  CHECK(got.rpn_cls == Approx(want.rpn_cls).epsilon(1e-5));
  CHECK(got.rpn_bbox == Approx(want.rpn_bbox).epsilon(1e-5));
  CHECK(got.cls == Approx(want.cls).epsilon(1e-5));
  CHECK(got.bbox == Approx(want.bbox).epsilon(1e-5));
  return want.total();
}

// An update of both networks.
inline void check_update(TrainNetwork& got_network, TrainNetwork& want_network, double rate = 0.01) {
  const double norm = want_network.update(rate, 0.9).gradient_norm;
  CHECK(norm > 0);
  CHECK(got_network.update(rate, 0.9).gradient_norm == Approx(norm).epsilon(1e-5));
}

}  // namespace frcnn::small
