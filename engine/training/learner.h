// What the training loop trains: TrainNetwork behind an interface, so that the loop can be tested without
// one.
#pragma once

#include <memory>

#include "training/train_network.h"

namespace frcnn {

// Each function as TrainNetwork's of the same name.
class Learner {
 public:
  virtual ~Learner() = default;
  virtual TrainLosses accumulate(const TrainImage& image, const StepPosition& position) = 0;
  virtual UpdateResult update(double learning_rate, double average_decay) = 0;
  virtual HostTensors state() const = 0;
  virtual void restore(const HostTensors& state) = 0;
  virtual std::shared_ptr<const Model> deploy() const = 0;
};

// The network on a device.
class NetworkLearner final : public Learner {
 public:
  explicit NetworkLearner(TrainNetwork& network) : network_(network) {}
  TrainLosses accumulate(const TrainImage& image, const StepPosition& position) override {
    return network_.accumulate(image, position);
  }
  UpdateResult update(double learning_rate, double average_decay) override {
    return network_.update(learning_rate, average_decay);
  }
  HostTensors state() const override { return network_.state(); }
  void restore(const HostTensors& state) override { network_.restore(state); }
  std::shared_ptr<const Model> deploy() const override { return network_.deploy(); }

 private:
  TrainNetwork& network_;
};

}  // namespace frcnn
