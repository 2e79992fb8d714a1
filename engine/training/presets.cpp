#include "training/presets.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "frcnn/error.h"
#include "training/architecture.h"

namespace frcnn {
namespace {

// The numbers of the release's end-to-end training (SPEC sections 9 to 12) for VOC2007; docs/training.md
// lists what is guarded here and not there.
RunConfig py_faster_rcnn() {
  RunConfig config;
  config.data.use_images_without_objects = false;
  config.train.solver.lr_steps = {50000};
  return config;
}

// The paper's loss, anchors and schedule of the RPN, in joint training.
RunConfig paper_voc() {
  RunConfig config = py_faster_rcnn();
  config.model.set["anchor_rule"] = "paper";
  TrainConfig& train = config.train;
  train.iterations = 80000;
  train.loss.norm = LossNorm::paper;
  train.loss.rpn_sigma = 1;
  train.solver.iter_size = 1;
  train.solver.lr_steps = {60000};
  return config;
}

// A few hundred images and a model to start from: a short run whose rate falls smoothly, with the safeguards
// that a small set needs.
RunConfig small_data() {
  RunConfig config;
  TrainConfig& train = config.train;
  train.iterations = 3000;
  train.solver.policy = LrPolicy::cosine;
  train.solver.warmup = 200;
  train.solver.clip_norm = 10;
  train.solver.average_decay = 0.998;
  train.augment.colour_gain = 0.1;
  train.augment.colour_shift = 8;
  return config;
}

// From random weights on 292 pictures of blood cells (docs/training.md): a small ZF in units that suit plain
// SGD.
RunConfig bccd() {
  RunConfig config;
  config.model.arch = "zf-small";
  config.model.set["anchor_scales"] = "3,8,12,16";
  TrainConfig& train = config.train;
  train.iterations = 3000;
  train.filler = Filler::he;
  train.solver.base_lr = 0.006;
  train.solver.iter_size = 1;
  train.solver.decay_biases = false;
  train.solver.clip_norm = 10;
  train.solver.average_decay = 0.998;
  train.solver.policy = LrPolicy::cosine;
  train.solver.warmup = 300;
  train.augment = {true, true, true, 0.1, 8, false};
  train.units.measure_input_offset = true;
  train.units.input_scale = 16;
  train.units.hidden = 64;
  return config;
}

struct Preset {
  const char* name;
  RunConfig (*make)();
  bool published;  // freezes and drops out as the release does
  const char* precision;
};
constexpr Preset presets[] = {{"py-faster-rcnn", py_faster_rcnn, true, "fp32"},
                              {"paper-voc", paper_voc, true, "fp32"},
                              {"small-data", small_data, true, "fp32"},
                              {"bccd", bccd, false, "auto"}};

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& one : presets) names.emplace_back(one.name);
  return names;
}

std::string preset_precision(const std::string& name) {
  for (const Preset& one : presets)
    if (one.name == name) return one.precision;
  return "fp32";
}

RunConfig preset(const std::string& name, const std::string& arch, const ModelConfig* init) {
  for (const Preset& one : presets) {
    if (one.name != name) continue;
    RunConfig config = one.make();
    config.train.preset = name;
    if (!arch.empty()) config.model.arch = arch;
    if (config.model.arch == arch_of_init && !init)
      throw Error(ErrorCode::invalid_argument,
                  "the architecture init needs a model to start from: --init MODEL");
    const std::vector<BackboneLayer> backbone =
        config.model.arch == arch_of_init ? init->backbone : backbone_of(config.model.arch);
    if (!one.published) return config;
    config.train.frozen = published_frozen_layers(backbone);
    // Published ZF models scale their dropout at test time, the others while training.
    if (config.model.arch == arch_of_init)
      config.train.dropout_scales_in_training = init->dropout_test_scale == 1;
    else
      config.train.dropout_scales_in_training = config.model.arch.rfind("zf", 0) != 0;
    return config;
  }
  throw Error(ErrorCode::invalid_argument,
              fmt::format("there is no preset {}; there are {}", name, fmt::join(preset_names(), ", ")));
}

}  // namespace frcnn
