#include "training/train_network.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "detector/faster_rcnn.h"
#include "frcnn/error.h"
#include "graph/backward.h"
#include "runtime/session.h"
#include "runtime/states.h"
#include "training/training_graph.h"
#include "training/training_units.h"

namespace frcnn {
namespace {

constexpr std::array<const char*, 4> loss_names{"rpn_cls_loss", "rpn_loss_bbox", "loss_cls", "loss_bbox"};
constexpr std::int64_t box_step = 32;  // room for boxes comes in steps, so that few plans serve all images
constexpr std::size_t cached_plans = 32;

std::int64_t room_for(std::size_t boxes) {
  return std::max<std::int64_t>((static_cast<std::int64_t>(boxes) + box_step - 1) / box_step, 1) * box_step;
}

Weight weight_of(const HostTensor& tensor) {
  auto data = std::make_shared<std::vector<float>>(tensor.data);
  return {{data->data(), tensor.shape, DType::f32}, data, {}};
}

// Layers can hide what is not a number: a ReLU makes 0 of it.
void require_finite(const std::string& name, const HostTensor& tensor) {
  const auto bad =
      std::find_if_not(tensor.data.begin(), tensor.data.end(), [](float x) { return std::isfinite(x); });
  if (bad != tensor.data.end())
    throw Error(ErrorCode::numeric, fmt::format("{}: {} at element {}; training cannot start from it", name,
                                                *bad, bad - tensor.data.begin()));
}

bool all_finite(const TensorView& view, Device& device) {
  std::vector<float> host(static_cast<std::size_t>(view.shape.elements()));
  device.download(host.data(), view.data, view.bytes());
  return std::all_of(host.begin(), host.end(), [](float x) { return std::isfinite(x); });
}

}  // namespace

struct TrainNetwork::Impl {
  ModelConfig published;
  TrainConfig config;
  TrainLimits limits;
  TrainingModel model;  // in training units
  std::shared_ptr<Device> device;
  HostTensors given;                  // weights as given, in published units
  HostTensors start;                  // the same in training units
  std::vector<Parameter> parameters;  // that are trained, in network order
  std::shared_ptr<const Weights> frozen;
  States states;
  std::unique_ptr<Session> session;
  std::int64_t accumulated = 0;  // images since the last update

  Impl(const ModelConfig& m, const HostTensors& weights, const TrainConfig& c, std::shared_ptr<Device> d,
       const TrainLimits& l)
      : published(m),
        config(c),
        limits(l),
        model(in_training_units(m, c)),
        device(d),
        given(weights),
        start(weights),
        states(d) {
    if (storage_of(device->precision()) != DType::f32 && !device->is_host())
      throw Error(ErrorCode::unsupported, fmt::format("precision {}: a GPU trains in fp32, tf32x3 or tf32",
                                                      name_of(device->precision())));
    to_training_units(published, config, start);
    const std::vector<std::string> layers = layer_names(published);
    for (const std::string& name : config.frozen)
      if (std::find(layers.begin(), layers.end(), name) == layers.end())
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("frozen: {} has no layer {}", published.name, name));
    std::map<std::string, Weight> constant;
    for (const std::string& layer : layers) {
      for (const char* which : {".weight", ".bias"}) {
        const std::string name = layer + which;
        const HostTensor& tensor = at(start, name);
        require_finite(name, tensor);
        if (!trained(layer))
          constant.emplace(name, weight_of(tensor));
        else
          parameters.push_back({name, tensor.shape, std::string_view(which) == ".bias"});
      }
    }
    if (parameters.empty())
      throw Error(ErrorCode::invalid_argument, "every layer is frozen: there is nothing to train");
    frozen = std::make_shared<const Weights>(std::move(constant), published.name);
  }

  static const HostTensor& at(const HostTensors& tensors, const std::string& name) {
    const auto found = tensors.find(name);
    if (found == tensors.end())
      throw Error(ErrorCode::bad_model, fmt::format("{}: there is no such weight", name));
    return found->second;
  }
  bool trained(const std::string& layer) const {
    return std::find(config.frozen.begin(), config.frozen.end(), layer) == config.frozen.end();
  }
  WeightSource source() const {
    return {[this](const std::string& name) { return at(start, name).shape; }, published.name,
            [this](const std::string& layer) { return trained(layer); }};
  }
  bool averages() const { return config.solver.average_decay > 0; }

  // What exists of a parameter, and what it starts as (null: zero).
  template <class F>
  void for_each_state(const Parameter& p, F f) const {
    f(p.name, &at(start, p.name));
    f(gradient_name(p.name), nullptr);
    f(velocity_name(p.name), nullptr);
    if (averages()) f(average_name(p.name), &at(start, p.name));
  }
  std::size_t bytes_of_states() const {
    std::size_t bytes = 0;
    for (const Parameter& p : parameters)
      for_each_state(p, [&](const std::string&, const HostTensor*) {
        bytes += TensorSpec{p.shape, DType::f32}.bytes();
      });
    return bytes;
  }
  void make_states() {
    for (const Parameter& p : parameters) {
      for_each_state(p, [&](const std::string& name, const HostTensor* value) {
        states.add(name, {p.shape, DType::f32});
        if (value) states.set(name, value->data.data(), value->data.size() * sizeof(float));
      });
    }
  }

  // The two extreme shapes of the scale rule, whose plans the others stay below, and room for the original
  // pixels.
  std::size_t arena_bytes() const {
    std::size_t bytes = 0;
    const int sides[2] = {published.short_side, published.long_side};
    for (int i : {0, 1}) {
      const Graph graph =
          image_graph(sides[i], sides[1 - i], 1.0, room_for(static_cast<std::size_t>(limits.boxes)), true);
      const Executable extreme(graph, {}, *frozen, *device, {ProgramMemory::none});
      bytes = std::max(bytes, extreme.plan().arena_bytes);
    }
    const Executable updating(update_graph(1), {}, *frozen, *device, {ProgramMemory::none});
    bytes = std::max(bytes, updating.plan().arena_bytes);
    return bytes + static_cast<std::size_t>(limits.image_pixels) * 3;
  }
  void make_session() {
    session =
        std::make_unique<Session>(frozen, device, SessionOptions{arena_bytes(), cached_plans, {}, &states});
  }

  Graph image_graph(std::int64_t height, std::int64_t width, double scale, std::int64_t boxes,
                    bool accumulate) const {
    return build_training_graph(model, source(), config,
                                {TrainingGraphRequest::Source::image, height, width, scale, boxes, accumulate,
                                 storage_of(device->precision())});
  }

  Graph update_graph(std::int64_t images) const {
    return build_update_graph(parameters, config.solver, images);
  }

  void check(const TrainImage& image) const {
    const auto fail = [&](const std::string& what) {
      throw Error(ErrorCode::invalid_argument, fmt::format("{}: {}", image.name, what));
    };
    if (image.width < 1 || image.height < 1) fail("the image has no pixels");
    const std::int64_t pixels = std::int64_t{image.width} * image.height;
    if (static_cast<std::int64_t>(image.bgr.size()) != 3 * pixels)
      fail(fmt::format("{}x{} pixels need {} bytes, {} given", image.width, image.height, 3 * pixels,
                       image.bgr.size()));
    if (pixels > limits.image_pixels)
      fail(fmt::format("{} pixels, memory is planned for {}", pixels, limits.image_pixels));
    if (static_cast<std::int64_t>(image.objects.size()) > limits.boxes)
      fail(fmt::format("{} boxes, memory is planned for {}", image.objects.size(), limits.boxes));
    for (const TrainImage::Object& object : image.objects) {
      if (object.class_id < 1 || object.class_id >= static_cast<int>(published.classes.size()))
        fail(fmt::format("class {} of {}", object.class_id, published.classes.size()));
      const auto& [x1, y1, x2, y2] = object.box;
      if (!(std::isfinite(x1) && std::isfinite(y1) && std::isfinite(x2) && std::isfinite(y2) && x1 <= x2 &&
            y1 <= y2))
        fail(fmt::format("a box of {},{} to {},{}", x1, y1, x2, y2));
    }
  }

  void set_inputs(Executable& executable, const TrainImage& image, double scale,
                  const StepPosition& position) const {
    const TensorView data = executable.view("data");
    const float im_info[3] = {static_cast<float>(data.shape[1]), static_cast<float>(data.shape[2]),
                              static_cast<float>(scale)};
    const auto seed = config.seed;
    const std::uint32_t key[4] = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                                  static_cast<std::uint32_t>(position.step),
                                  static_cast<std::uint32_t>(position.image)};
    const auto count = static_cast<std::int32_t>(image.objects.size());
    std::vector<float> boxes(static_cast<std::size_t>(executable.view("gt_boxes").shape.elements()), 0.0f);
    for (std::size_t i = 0; i < image.objects.size(); ++i) {
      for (std::size_t k = 0; k < 4; ++k)
        boxes[i * 5 + k] = static_cast<float>(image.objects[i].box[k] * scale);
      boxes[i * 5 + 4] = static_cast<float>(image.objects[i].class_id);
    }
    SourceImage source;
    source.row_bytes = std::int64_t{image.width} * 3;
    source.inverse_scale = 1.0 / scale;
    source.height = image.height;
    source.width = image.width;
    source.out_height = static_cast<std::int32_t>(data.shape[1]);
    source.out_width = static_cast<std::int32_t>(data.shape[2]);
    executable.set("images", &source, sizeof source);
    executable.set("pixels", image.bgr.data(), image.bgr.size());
    executable.set("im_info", im_info, sizeof im_info);
    executable.set("random_key", key, sizeof key);
    executable.set("gt_boxes", boxes.data(), boxes.size() * sizeof(float));
    executable.set("gt_count", &count, sizeof count);
  }

  // The first value that is not finite, found by running once more.
  std::string first_nonfinite(Executable& executable) const {
    std::string name = "a value";
    executable.run_watched([&](const Node& node, std::span<const TensorView> out) {
      if (node.stage == Stage::proposals) return true;  // filtered candidates have a score of minus infinity
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (out[i].dtype != DType::f32 || all_finite(out[i], *device)) continue;
        name = executable.graph().value(node.out[i]).name;
        return false;
      }
      return true;
    });
    return name;
  }
};

TrainNetwork::TrainNetwork(const ModelConfig& model, const HostTensors& weights, const TrainConfig& config,
                           std::shared_ptr<Device> device, const TrainLimits& limits)
    : impl_(std::make_unique<Impl>(model, weights, config, std::move(device), limits)) {
  impl_->make_states();
  impl_->make_session();
}

TrainNetwork::~TrainNetwork() = default;

TrainLosses TrainNetwork::accumulate(const TrainImage& image, const StepPosition& position) {
  Impl& impl = *impl_;
  const bool more = impl.accumulated > 0;
  const std::int64_t before = std::exchange(impl.accumulated, 0);  // whatever fails below forgets them
  impl.check(image);
  const double scale = image_scale(impl.published, image.height, image.width);
  const std::int64_t boxes = room_for(image.objects.size());
  Executable& executable = impl.session->executable({0, image.height, image.width, boxes, more}, [&] {
    return impl.image_graph(image.height, image.width, scale, boxes, more);
  });
  impl.set_inputs(executable, image, scale, position);
  executable.run();
  std::array<float, 4> losses{};
  for (std::size_t i = 0; i < losses.size(); ++i) executable.get(loss_names[i], &losses[i], sizeof(float));
  std::int32_t nonfinite = 0;
  executable.get("rpn_nonfinite", &nonfinite, sizeof nonfinite);
  if (nonfinite || !std::all_of(losses.begin(), losses.end(), [](float x) { return std::isfinite(x); })) {
    impl.set_inputs(executable, image, scale, position);
    throw Error(ErrorCode::numeric, fmt::format("{}: {} holds a NaN or an infinity in step {}", image.name,
                                                impl.first_nonfinite(executable), position.step));
  }
  impl.accumulated = before + 1;
  return {losses[0], losses[1], losses[2], losses[3]};
}

UpdateResult TrainNetwork::update(double learning_rate, double average_decay) {
  Impl& impl = *impl_;
  const std::int64_t count = std::exchange(impl.accumulated, 0);
  if (count == 0)
    throw Error(ErrorCode::invalid_argument, "there is no gradient to update with: accumulate first");
  Executable& executable = impl.session->executable({1, count}, [&] { return impl.update_graph(count); });
  const float rates[2] = {static_cast<float>(learning_rate), static_cast<float>(average_decay)};
  executable.set("rates", rates, sizeof rates);
  executable.run();
  std::vector<float> norms(impl.parameters.size() + 1);
  executable.get("gradient_norms", norms.data(), norms.size() * sizeof(float));
  for (std::size_t i = 0; i < impl.parameters.size(); ++i)
    if (!std::isfinite(norms[i]))
      throw Error(ErrorCode::numeric,
                  fmt::format("the gradient of {} holds a NaN or an infinity", impl.parameters[i].name));
  if (!std::isfinite(norms.back()))
    throw Error(ErrorCode::numeric, "the norm of all gradients is beyond float32");
  return {norms.back()};
}

HostTensors TrainNetwork::state() const {
  HostTensors all;
  for (const Parameter& p : impl_->parameters) {
    impl_->for_each_state(p, [&](const std::string& name, const HostTensor*) {
      if (name == gradient_name(p.name)) return;  // belongs to a step, not between two
      HostTensor tensor{p.shape, std::vector<float>(static_cast<std::size_t>(p.shape.elements()))};
      impl_->states.get(name, tensor.data.data(), tensor.data.size() * sizeof(float));
      all.emplace(name, std::move(tensor));
    });
  }
  return all;
}

void TrainNetwork::restore(const HostTensors& state) {
  const auto each = [&](auto f) {
    for (const Parameter& p : impl_->parameters)
      impl_->for_each_state(p, [&](const std::string& name, const HostTensor*) {
        if (name != gradient_name(p.name)) f(p, name);
      });
  };
  std::size_t known = 0;
  each([&](const Parameter& p, const std::string& name) {  // all are looked at before one is touched
    const auto found = state.find(name);
    if (found == state.end())
      throw Error(ErrorCode::invalid_argument, fmt::format("the state to go on from has no {}", name));
    if (found->second.shape != p.shape ||
        static_cast<std::int64_t>(found->second.data.size()) != p.shape.elements())
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{}: expected {}, the state to go on from has {}", name, to_string(p.shape),
                              to_string(found->second.shape)));
    require_finite(name, found->second);
    ++known;
  });
  if (known != state.size())
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the state to go on from has {} tensors, this network {}", state.size(), known));
  each([&](const Parameter&, const std::string& name) {
    const HostTensor& tensor = state.at(name);
    impl_->states.set(name, tensor.data.data(), tensor.data.size() * sizeof(float));
  });
  impl_->accumulated = 0;
}

std::shared_ptr<const Model> TrainNetwork::deploy() const {
  HostTensors weights = impl_->start;
  for (const Parameter& p : impl_->parameters) {
    HostTensor& tensor = weights.at(p.name);
    impl_->states.get(impl_->averages() ? average_name(p.name) : p.name, tensor.data.data(),
                      tensor.data.size() * sizeof(float));
  }
  to_published_units(impl_->published, impl_->config, weights);
  std::map<std::string, Weight> tensors;
  for (auto& [name, tensor] : weights) {
    const bool moved = std::any_of(impl_->parameters.begin(), impl_->parameters.end(),
                                   [&n = name](const Parameter& p) { return p.name == n; });
    tensors.emplace(name, weight_of(moved ? tensor : impl_->given.at(name)));
  }
  return std::make_shared<const Model>(impl_->published, std::move(tensors), "the trained network");
}

std::size_t TrainNetwork::arena_bytes() const { return impl_->session->arena_bytes(); }
std::size_t TrainNetwork::state_bytes() const { return impl_->states.bytes(); }
SessionStats TrainNetwork::stats() const { return impl_->session->stats(); }

std::size_t TrainNetwork::planned_bytes(const ModelConfig& model, const HostTensors& weights,
                                        const TrainConfig& config, std::shared_ptr<Device> device,
                                        const TrainLimits& limits) {
  const Impl impl(model, weights, config, std::move(device), limits);
  return impl.arena_bytes() + impl.bytes_of_states();
}

}  // namespace frcnn
