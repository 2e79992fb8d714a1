// One training step and three of SGD against another implementation's, at the tolerances of the golden
// README: every loss, every parameter's gradient, gradients of activations, and how far every parameter
// moves.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "golden/golden.h"
#include "graph/backward.h"
#include "model_io/convert/implied.h"
#include "runtime/session.h"
#include "runtime/states.h"
#include "training/training_graph.h"

#if defined(FRCNN_SIMT)
#include "tests/simt/fake_runtime.h"
#endif

using namespace frcnn;

// On the CPU, and compiled once more, on CUDA through the emulator, where a step takes minutes and the build
// gives it another tag.
#ifndef FRCNN_STEP_TAGS
#define FRCNN_STEP_TAGS "[golden]"
#endif

namespace {

constexpr double loss_tolerance = 1e-5, gradient_tolerance = 1e-3, delta_tolerance = 1e-2;
constexpr const char* losses[] = {"rpn_cls_loss", "rpn_loss_bbox", "loss_cls", "loss_bbox"};

Shape shape_of(const StoredTensor& tensor) {
  Shape shape;
  for (const std::int64_t d : tensor.shape) shape.dim[static_cast<std::size_t>(shape.rank++)] = d;
  return shape;
}

template <class T>
double largest(const std::vector<T>& values) {
  double most = 0;
  for (const T v : values) most = std::max(most, static_cast<double>(std::abs(v)));
  return most;
}

std::vector<double> sums_of_rows(const std::vector<float>& values, std::size_t rows) {
  std::vector<double> sums(rows);
  for (std::size_t i = 0; i < values.size(); ++i) sums[i / (values.size() / rows)] += static_cast<double>(values[i]);
  return sums;
}

// The reference's network with its initial weights as states.
class Step {
 public:
  Step(const SafetensorsFile& file, std::vector<std::string> frozen, const SolverConfig& solver, int threads)
      : file_(file), device_(device_with(threads)), states_(device_) {
    model_.config = config_of(file);
    config_.frozen = std::move(frozen);
    config_.dropout = 0;
    config_.solver = solver;
    config_.roi.batch = golden::tensor(file, "rois").shape[0];
    std::map<std::string, Weight> constant;
    for (const auto& match : golden::matching(file, R"(init\.(.+)\.(weight|bias))")) {
      const std::string name = match[1] + "." + match[2];
      const StoredTensor& stored = golden::tensor(file, match[0]);
      auto values = std::make_shared<std::vector<float>>(golden::values(stored));
      if (trained(match[1]))
        parameters_.push_back({name, shape_of(stored), match[2] == "bias"});
      else
        constant.emplace(name, Weight{{values->data(), shape_of(stored), DType::f32}, values, {}});
    }
    weights_ = std::make_shared<const Weights>(std::move(constant), file.path());
    for (const Parameter& p : parameters_)
      for (const std::string& name : {p.name, gradient_name(p.name), velocity_name(p.name)})
        states_.add(name, {p.shape, DType::f32});
    for (const Parameter& p : parameters_) {
      const auto start = golden::values(file, "init." + p.name);
      states_.set(p.name, start.data(), start.size() * sizeof(float));
    }
    const StoredTensor& data = golden::tensor(file, "data");
    TrainingGraphRequest request{TrainingGraphRequest::Source::given, data.shape[2], data.shape[3]};
    const WeightSource source{
        [&](const std::string& name) { return shape_of(golden::tensor(file, "init." + name)); }, file.path(),
        [this](const std::string& layer) { return trained(layer); }};
    graph_ = build_training_graph(model_, source, config_, request);
  }

  // `keep` names values to read afterwards.
  void prepare(const std::vector<std::string>& keep = {}, ProgramMemory memory = ProgramMemory::arena) {
    step_ = std::make_unique<Executable>(graph_, keep, *weights_, *device_,
                                         ExecutableOptions{memory, nullptr, 0, nullptr, &states_});
    update_ = std::make_unique<Executable>(build_update_graph(parameters_, config_.solver, 1),
                                           std::span<const std::string>{}, *weights_, *device_,
                                           ExecutableOptions{memory, nullptr, 0, nullptr, &states_});
  }

  std::vector<double> run() {
    set_inputs();
    step_->run();
    std::vector<double> got;
    for (const char* name : losses) {
      float value = 0;
      step_->get(name, &value, sizeof value);
      got.push_back(value);
    }
    return got;
  }
  void update(double rate) {
    const float rates[2] = {static_cast<float>(rate), 0};
    update_->set("rates", rates, sizeof rates);
    update_->run();
  }

  const Graph& graph() const { return graph_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  std::vector<float> state(const std::string& name) const {
    std::vector<float> values(static_cast<std::size_t>(states_.view(name).shape.elements()));
    states_.get(name, values.data(), values.size() * sizeof(float));
    return values;
  }
  std::vector<float> value(const std::string& name) const {
    std::vector<float> values(static_cast<std::size_t>(step_->view(name).shape.elements()));
    step_->get(name, values.data(), values.size() * sizeof(float));
    return values;
  }

 private:
  static ModelConfig config_of(const SafetensorsFile& file) {
    TensorShapes shapes;
    ModelConfig config;
    for (const auto& match : golden::matching(file, R"(init\.(.+)\.(weight|bias))")) {
      shapes[match[1] + "." + match[2]] = golden::tensor(file, match[0]).shape;
      if (match[1].rfind("rpn_conv", 0) == 0) config.names.rpn_conv = match[1];
    }
    const auto topology = topology_of(shapes);
    REQUIRE(topology.has_value());
    config.name = "golden";
    config.backbone = topology->backbone;
    for (std::int64_t c = 0; c < shapes.at("cls_score.bias")[0]; ++c)
      config.classes.push_back("class " + std::to_string(c));
    const std::int64_t channels = shapes.at(config.names.rpn_conv + ".weight")[1];
    config.pooled_h = config.pooled_w =
        static_cast<int>(std::lround(std::sqrt(shapes.at("fc6.weight")[1] / channels)));
    return config;
  }
  bool trained(const std::string& layer) const {
    return std::find(config_.frozen.begin(), config_.frozen.end(), layer) == config_.frozen.end();
  }
  template <typename T>
  void set(const std::string& name, const std::vector<T>& values) {
    step_->set(name, values.data(), values.size() * sizeof(T));
  }
  void set_inputs() {
    set("data", golden::nhwc(file_, "data"));
    set("rois", golden::values(file_, "rois"));
    set("labels", golden::values<std::int32_t>(file_, "labels"));
    set("rois_count", std::vector<std::int32_t>{static_cast<std::int32_t>(config_.roi.batch)});
    for (const char* name : {"bbox_targets", "bbox_inside_weights", "bbox_outside_weights"}) {
      set(name, golden::values(file_, name));
      set(std::string("rpn_") + name, golden::nhwc(file_, std::string("rpn_") + name));
    }
    // Stored [1,1,A H,W] with a slowest; ours is [1,H,W,A].
    const StoredTensor& map = golden::tensor(file_, "rpn_bbox_targets");
    const std::int64_t h = map.shape[2], w = map.shape[3];
    set("rpn_labels",
        golden::nchw_to_nhwc(golden::values<std::int32_t>(file_, "rpn_labels"), 1, map.shape[1] / 4, h, w));
  }

  static std::shared_ptr<Device> device_with([[maybe_unused]] int threads) {
#if defined(FRCNN_SIMT)
    return make_device("cuda:0");
#else
    return make_cpu_device(threads);
#endif
  }

#if defined(FRCNN_SIMT)
  simt::FakeMachine machine_;
#endif
  const SafetensorsFile& file_;
  std::shared_ptr<Device> device_;
  States states_;
  TrainingModel model_;
  TrainConfig config_;
  std::shared_ptr<const Weights> weights_;
  std::vector<Parameter> parameters_;
  Graph graph_;
  std::unique_ptr<Executable> step_, update_;
};

}  // namespace

TEST_CASE("golden: losses and gradients of a training step", FRCNN_STEP_TAGS) {
  const auto file = golden::open("train_step.safetensors");
  if (!file) return;
#if defined(FRCNN_SIMT)
  const auto thread_counts = {1};
#else
  const auto thread_counts = {1, 2};
#endif
  for (const int threads : thread_counts) {
    Step step(*file, {}, {}, threads);
    // Of RoI-pooled maps the file holds the sum over each RoI, under the top's name and "_sum".
    std::vector<std::string> keep, stored_as;
    for (const auto& match : golden::matching(*file, R"(grad_top\.([^.]+))")) {
      std::string top = match[1];
      if (const auto end = top.rfind("_sum"); end != std::string::npos && end + 4 == top.size()) top.resize(end);
      INFO(top);
      REQUIRE(step.graph().find(top) >= 0);
      keep.push_back(top);
      stored_as.push_back(match[0]);
    }
    REQUIRE_FALSE(keep.empty());
    // The gradient of a top is the value that ends the sum of its contributions, or the one contribution.
    std::vector<std::string> gradients;
    for (std::string& top : keep) {
      std::string last;
      for (const Value& value : step.graph().values())
        if (value.name == top + "@d" || value.name.rfind(top + "@d with", 0) == 0) last = value.name;
      INFO(top);
      REQUIRE_FALSE(last.empty());
      gradients.push_back(last);
    }
    step.prepare(gradients);
    golden::Tally tally("training step, losses"), parameters("training step, gradients"),
        tops("training step, gradients of tops");
    tally.compare("losses", step.run(), golden::values<double>(*file, "losses"), 0, loss_tolerance);
    for (const Parameter& p : step.parameters()) {
      const auto want = golden::values(*file, "grad." + p.name);
      parameters.compare(p.name, step.state(gradient_name(p.name)), want, gradient_tolerance * largest(want));
    }
    for (std::size_t i = 0; i < keep.size(); ++i) {
      const StoredTensor& stored = golden::tensor(*file, stored_as[i]);
      const std::vector<float> got = step.value(gradients[i]);
      if (stored.name.ends_with("_sum")) {
        const auto rows = static_cast<std::size_t>(stored.shape[0]);
        REQUIRE(got.size() % rows == 0);
        const auto want = golden::values<double>(*file, stored.name);
        tops.compare(stored.name, sums_of_rows(got, rows), want, gradient_tolerance * largest(want));
        continue;
      }
      const auto want =
          stored.shape.size() == 4 ? golden::nhwc(*file, stored.name) : golden::values(*file, stored.name);
      tops.compare(keep[i], got, want, gradient_tolerance * largest(want));
    }
    tally.finish();
    parameters.finish();
    tops.finish();
  }
}

TEST_CASE("golden: three steps of SGD", FRCNN_STEP_TAGS) {
  const auto file = golden::open("train_step.safetensors");
  if (!file) return;
  golden::Tally moved("training, three steps"), lost("training, losses of three steps");
  for (const auto& variant : golden::matching(*file, R"((sgd\w*)\.losses)")) {
    INFO(variant[1]);
    const std::string name = variant[1];
    SolverConfig solver;
    solver.decay_biases = name.find("pfr") != std::string::npos;
    // What a variant says nothing about was frozen.
    std::vector<std::string> frozen;
    if (name != "sgd3") frozen = {"conv1_1", "conv1_2", "conv2_1", "conv2_2"};
    Step step(*file, frozen, solver, 2);
    step.prepare();
    std::vector<double> seen;
    const auto add = [&](const std::vector<double>& values) {
      seen.insert(seen.end(), values.begin(), values.end());
    };
    for (int i = 0; i < 3; ++i) {
      add(step.run());
      step.update(0.001);
    }
    add(step.run());
    lost.compare(name, seen, golden::values<double>(*file, variant[0]), 0, loss_tolerance);
    std::size_t compared = 0;
    for (const Parameter& p : step.parameters()) {
      if (!file->find(name + ".delta." + p.name)) continue;
      const auto want = golden::values(*file, name + ".delta." + p.name),
                 start = golden::values(*file, "init." + p.name);
      auto delta = step.state(p.name);
      for (std::size_t i = 0; i < delta.size(); ++i) delta[i] -= start[i];
      moved.compare(name + " " + p.name, delta, want, delta_tolerance * largest(want));
      ++compared;
    }
    CHECK(compared == golden::matching(*file, name + R"(\.delta\..+)").size());
  }
  moved.finish();
  lost.finish();
}

#if !defined(FRCNN_SIMT)
TEST_CASE("golden: a training step in guarded memory gives the same bytes", "[golden]") {
  const auto file = golden::open("train_step.safetensors");
  if (!file) return;
  std::vector<std::vector<float>> gradients[2];
  for (const int i : {0, 1}) {
    Step step(*file, {"conv1_1", "conv1_2"}, {}, 2);
    step.prepare({}, i == 0 ? ProgramMemory::arena : ProgramMemory::guarded);
    step.run();
    for (const Parameter& p : step.parameters()) gradients[i].push_back(step.state(gradient_name(p.name)));
  }
  CHECK(gradients[0] == gradients[1]);
}
#endif
