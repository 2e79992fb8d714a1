// The backward of a graph: what is appended for which layers, and that it is the derivative of the losses.
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "catch.h"
#include "frcnn/error.h"
#include "graph/backward.h"
#include "graph/lower.h"
#include "graph/plan.h"
#include "runtime/session.h"

using namespace frcnn;

namespace {

// Three convolutions, the last two on one map, whose sum goes through every other kind of layer to a fully
// connected one and two losses.
struct Net {
  Graph graph;
  std::set<std::string> trained{"a", "b", "c", "fc"};

  ValueId parameter(const std::string& layer, const char* which, Shape shape) {
    const std::string name = layer + which;
    return trained.count(layer) ? graph.state(name, {shape, DType::f32}) : graph.weight(name, shape);
  }
  ValueId conv(const std::string& layer, ValueId src, std::int64_t outputs, std::int64_t kernel, Conv2d op) {
    const std::int64_t inputs = graph.value(src).spec.shape[3];
    return graph.add1(op, layer, Stage::backbone,
                      {src, parameter(layer, ".weight", {outputs, inputs, kernel, kernel}),
                       parameter(layer, ".bias", {outputs})},
                      layer);
  }

  void build(bool align = false) {
    const ValueId in = graph.input("in", {Shape{1, 11, 13, 3}});
    const ValueId a =
        graph.add1(Relu{}, "relu", Stage::backbone, {conv("a", in, 6, 3, {2, 1, {}})}, "a@relu");
    const ValueId both = graph.add1(Add{}, "add", Stage::backbone,
                                    {conv("b", a, 4, 3, {1, 1, {}}), conv("c", a, 4, 1, {1, 0, {}})}, "sum");
    const ValueId normal = graph.add1(Lrn{}, "lrn", Stage::backbone, {both}, "normal");
    const ValueId scaled = graph.add1(Scale{0.5f}, "scale", Stage::backbone, {normal}, "scaled");
    const bool saves = !trained.empty();
    const MaxPool pool{2, 1, 0, Rounding::ceil, saves};
    const ValueId pooled = graph.add(
        pool, "pool", Stage::backbone, {scaled},
        saves ? std::vector<std::string>{"pooled", "pooled@argmax"} : std::vector<std::string>{"pooled"})[0];
    const ValueId rois = graph.input("rois", {Shape{3, 5}});
    const ValueId roi =
        align ? graph.add1(RoiAlign{2, 3, 0.5f, 2, true}, "roi", Stage::head, {pooled, rois}, "roi")
              : graph.add(RoiPool{2, 3, 0.5f, true}, "roi", Stage::head, {pooled, rois},
                          {"roi", "roi@argmax"})[0];
    const ValueId fc =
        graph.add1(Linear{}, "fc", Stage::head,
                   {roi, parameter("fc", ".weight", {4, 2 * 3 * 4}), parameter("fc", ".bias", {4})}, "fc");
    const ValueId labels = graph.input("labels", {Shape{3}, DType::i32});
    graph.keep(graph.add(SoftmaxLoss{}, "loss_cls", Stage::loss, {fc, labels}, {"loss_cls", "fc@d cls"})[0]);
    std::vector<ValueId> boxes{both};
    for (const char* name : {"target", "inside", "outside"})
      boxes.push_back(graph.input(name, {graph.value(both).spec.shape}));
    graph.keep(graph.add(SmoothL1Loss{}, "loss_box", Stage::loss, boxes, {"loss_box", "sum@d box"})[0]);
  }
};

std::vector<float> numbers(std::size_t count, float low, float high, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> all(count);
  for (float& x : all) x = low + (high - low) * static_cast<float>(random() >> 8) / 16777216.0f;
  return all;
}

// The layers that have backward nodes, each with how many.
std::map<std::string, int> backward_nodes(const Graph& graph) {
  std::map<std::string, int> nodes;
  for (const Node& node : graph.nodes())
    if (node.stage == Stage::backward) ++nodes[node.layer];
  return nodes;
}

class Trained {
 public:
  explicit Trained(const Graph& graph) : device_(make_cpu_device(1)), states_(device_) {
    unsigned seed = 1;
    for (const Value& value : graph.values()) {
      if (value.role != Role::state) continue;
      states_.add(value.name, value.spec);
      if (value.name.find('@') != std::string::npos) continue;
      values_[value.name] =
          numbers(static_cast<std::size_t>(value.spec.shape.elements()), -0.5f, 0.5f, seed++);
    }
    executable_ =
        std::make_unique<Executable>(graph, std::vector<std::string>{}, Weights({}, "none"), *device_,
                                     ExecutableOptions{ProgramMemory::arena, nullptr, 0, nullptr, &states_});
  }
  double loss() {
    for (const auto& [name, data] : values_) states_.set(name, data.data(), data.size() * sizeof(float));
    unsigned seed = 50;
    for (const Value& value : executable_->graph().values()) {
      if (value.role != Role::input) continue;
      const auto count = static_cast<std::size_t>(value.spec.shape.elements());
      if (value.spec.dtype == DType::i32) {
        const std::vector<std::int32_t> labels{2, -1, 0};
        executable_->set(value.name, labels.data(), value.spec.bytes());
      } else if (value.name == "rois") {
        const std::vector<float> rois{0, 1, 2, 9, 8, 0, 0, 0, 12, 10, 0, 5, 3, 6, 9};
        executable_->set("rois", rois.data(), value.spec.bytes());
      } else {
        executable_->set(value.name, numbers(count, 0, 1, seed++).data(), value.spec.bytes());
      }
    }
    executable_->run();
    double sum = 0;
    for (const char* name : {"loss_cls", "loss_box"}) {
      float value = 0;
      executable_->get(name, &value, sizeof value);
      sum += static_cast<double>(value);
    }
    return sum;
  }
  std::vector<float> gradient(const std::string& name) const {
    std::vector<float> data(values_.at(name).size());
    states_.get(gradient_name(name), data.data(), data.size() * sizeof(float));
    return data;
  }
  std::map<std::string, std::vector<float>>& values() { return values_; }

 private:
  std::shared_ptr<Device> device_;
  States states_;
  std::map<std::string, std::vector<float>> values_;
  std::unique_ptr<Executable> executable_;
};

}  // namespace

// Along random directions, so that the few elements whose ReLU or maximum flips within the step do not count.
TEST_CASE("the backward of a graph is the derivative of its losses", "[backward]") {
  for (const bool align : {false, true}) {
    Net net;
    net.build(align);
    append_backward(net.graph, false);
    Trained trained(net.graph);
    CHECK(trained.values().size() == 8);
    trained.loss();
    std::map<std::string, std::vector<float>> gradients;
    for (const auto& [name, data] : trained.values()) gradients[name] = trained.gradient(name);
    for (auto& [name, data] : trained.values()) {
      for (unsigned round = 0; round < 4; ++round) {
        const std::vector<float> direction = numbers(data.size(), -1, 1, 100 + round), at = data;
        double along = 0, size = 0;
        for (std::size_t i = 0; i < data.size(); ++i) {
          along += static_cast<double>(gradients[name][i]) * direction[i];
          size += std::abs(static_cast<double>(gradients[name][i]) * direction[i]);
        }
        constexpr float step = 1.0f / 1024;
        for (std::size_t i = 0; i < data.size(); ++i) data[i] = at[i] + step * direction[i];
        const double above = trained.loss();
        for (std::size_t i = 0; i < data.size(); ++i) data[i] = at[i] - step * direction[i];
        const double below = trained.loss();
        data = at;
        INFO(name << ", round " << round);
        CHECK((above - below) / (2 * static_cast<double>(step)) == Approx(along).margin(0.02 * size + 1e-3));
      }
    }
  }
}

TEST_CASE("gradients are added to what is there when asked", "[backward]") {
  Net once, twice;
  once.build();
  twice.build();
  append_backward(once.graph, false);
  append_backward(twice.graph, true);
  Trained a(once.graph), b(twice.graph);
  a.loss();
  b.loss();
  b.loss();
  for (const auto& [name, data] : a.values()) {
    const std::vector<float> one = a.gradient(name), two = b.gradient(name);
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(two[i] == Approx(2 * one[i]).margin(1e-6));
  }
}

TEST_CASE("frozen layers get no backward nodes, nor does what lies before them", "[backward]") {
  Net all;
  all.build();
  append_backward(all.graph, false);
  std::map<std::string, int> nodes = backward_nodes(all.graph);
  CHECK(nodes["a"] == 1);  // its weight's gradient: nobody wants the input's
  CHECK(nodes["b"] == 3);  // its weight's, its source's, and the sum with what `c` gave
  CHECK(nodes["c"] == 2);

  Net part;
  part.trained = {"c", "fc"};
  part.build();
  append_backward(part.graph, false);
  nodes = backward_nodes(part.graph);
  CHECK(nodes.count("a") == 0);
  CHECK(nodes.count("relu") == 0);
  CHECK(nodes.count("b") == 0);
  CHECK(nodes["c"] == 1);

  Net head;
  head.trained = {"fc"};
  head.build();
  append_backward(head.graph, false);
  CHECK(backward_nodes(head.graph) == std::map<std::string, int>{{"fc", 1}});

  Net none;
  none.trained = {};
  none.build();
  const std::size_t before = none.graph.nodes().size();
  append_backward(none.graph, false);
  CHECK(none.graph.nodes().size() == before);
}

TEST_CASE("what cannot be trained is refused by the layer's name", "[backward]") {
  const auto refused = [](Graph& graph, const char* layer) {
    CHECK_THROWS_WITH(append_backward(graph, false), Catch::Contains(layer));
  };
  const Shape map{1, 4, 4, 2};
  const auto finish = [&](Graph& graph, ValueId top) {
    const ValueId target = graph.input("target", {graph.value(top).spec.shape});
    graph.add(SmoothL1Loss{}, "loss", Stage::loss, {top, target, target, target}, {"loss", "loss@d"});
  };
  {
    Graph g;  // only the weight is trained
    const ValueId in = g.input("in", {map});
    finish(g, g.add1(Conv2d{}, "half", Stage::backbone,
                     {in, g.state("w", {Shape{2, 2, 1, 1}, DType::f32}), g.weight("b", {2})}, "top"));
    refused(g, "half");
  }
  {
    Graph g;  // one weight for two layers
    const ValueId in = g.input("in", {map});
    const ValueId w = g.state("w", {Shape{2, 2, 1, 1}, DType::f32}), b = g.state("b", {Shape{2}, DType::f32});
    const ValueId one = g.add1(Conv2d{}, "one", Stage::backbone, {in, w, b}, "one");
    finish(g, g.add1(Conv2d{}, "two", Stage::backbone, {one, w, b}, "two"));
    refused(g, "shares its weight");
  }
  {
    Graph g;  // maxima that nobody wrote down
    const ValueId in = g.input("in", {map});
    const ValueId w = g.state("w", {Shape{2, 2, 1, 1}, DType::f32}), b = g.state("b", {Shape{2}, DType::f32});
    const ValueId one = g.add1(Conv2d{}, "one", Stage::backbone, {in, w, b}, "one");
    finish(g, g.add1(MaxPool{2, 2}, "forgetful", Stage::backbone, {one}, "pooled"));
    refused(g, "forgetful");
  }
  {
    Graph g;  // lowered already
    const ValueId in = g.input("in", {map});
    const ValueId w = g.state("w", {Shape{2, 2, 1, 1}, DType::f32}), b = g.state("b", {Shape{2}, DType::f32});
    finish(g, g.add1(Conv2d{1, 0, {true}}, "fused", Stage::backbone, {in, w, b}, "one"));
    refused(g, "fused");
  }
  {
    Graph g;  // a layer without a backward
    const ValueId in = g.input("in", {map});
    const ValueId w = g.state("w", {Shape{2, 2, 1, 1}, DType::f32}), b = g.state("b", {Shape{2}, DType::f32});
    const ValueId one = g.add1(Conv2d{}, "one", Stage::backbone, {in, w, b}, "one");
    finish(g, g.add1(Softmax{1}, "prob", Stage::backbone, {one}, "prob"));
    refused(g, "prob");
  }
}

TEST_CASE("states have no place in the arena", "[backward][plan]") {
  Net net;
  net.build();
  append_backward(net.graph, false);
  const Graph lowered = lower(net.graph, {}, {});
  const Plan plan = make_plan(lowered, std::vector<std::size_t>(lowered.nodes().size(), 0));
  std::size_t states = 0;
  for (std::size_t i = 0; i < lowered.values().size(); ++i) {
    const Value& value = lowered.values()[i];
    if (value.role != Role::state) continue;
    ++states;
    CHECK(plan.offset[i] == Plan::npos);
    for (const Buffer& buffer : plan.buffers) CHECK(buffer.name != value.name);
  }
  CHECK(states == 16);
}

TEST_CASE("a graph with states stores its maps in f32 whatever the device's precision", "[backward]") {
  Net net;
  net.build();
  append_backward(net.graph, false);
  const Graph lowered = lower(net.graph, {}, {}, DType::bf16);
  for (const Value& value : lowered.values()) CHECK(value.spec.dtype != DType::bf16);
}
