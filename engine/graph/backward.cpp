#include "graph/backward.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "frcnn/error.h"

namespace frcnn {

namespace {

constexpr ValueId none = -1;

// One rule per op: what its node gives its inputs, when `d` is the gradient of its first output.
class Backward {
 public:
  Backward(Graph& graph, bool accumulate) : graph_(graph), accumulate_(accumulate) {
    const std::vector<Node> forward = graph.nodes();
    wanted_.assign(graph.values().size(), false);
    for (std::size_t i = 0; i < wanted_.size(); ++i) wanted_[i] = graph.values()[i].role == Role::state;
    for (const Node& node : forward)
      if (std::any_of(node.in.begin(), node.in.end(), [&](ValueId id) { return wanted(id); }))
        for (ValueId id : node.out) wanted_[index(id)] = true;
    gradient_.assign(wanted_.size(), none);
    for (auto node = forward.rbegin(); node != forward.rend(); ++node) {
      node_ = &*node;
      d_ = gradient_[index(node->out.front())];
      std::visit(*this, node->op);
    }
  }

  void operator()(const Conv2d& op) {
    if (d_ == none) return;
    require(op.epilogue == Epilogue{}, "is already lowered");
    const Shape source = spec(0).shape, weight = spec(1).shape;
    if (trained())
      graph_.add_into(Conv2dBackwardWeight{op.stride, op.pad, weight[2], weight[3], accumulate_, op.operands},
                      node_->layer, Stage::backward, {node_->in[0], d_}, gradient_states());
    if (wanted(node_->in[0]))
      give(0, Conv2dBackwardData{op.stride, op.pad, source[1], source[2], op.operands}, {d_, node_->in[1]});
  }

  void operator()(const Linear& op) {
    if (d_ == none) return;
    require(op.epilogue == Epilogue{}, "is already lowered");
    const Shape source = spec(0).shape;
    if (trained())
      graph_.add_into(LinearBackwardWeight{accumulate_}, node_->layer, Stage::backward, {node_->in[0], d_},
                      gradient_states());
    if (!wanted(node_->in[0])) return;
    LinearBackwardData data;
    if (source.rank == 4) data.map = {source[1], source[2], source[3]};
    give(0, data, {d_, node_->in[1]});
  }

  void operator()(const Relu&) { pass(ReluBackward{}, {d_, node_->out[0]}); }
  void operator()(const Scale& op) { pass(op, {d_}); }
  void operator()(const Lrn& op) { pass(LrnBackward{op}, {d_, node_->in[0]}); }
  void operator()(const Dropout& op) { pass(op, {d_, node_->in[1]}); }

  void operator()(const MaxPool& op) {
    if (d_ == none) return;
    require(op.save_argmax, "does not save where its maxima were");
    pass(MaxPoolBackward{op, spec(0).shape[1], spec(0).shape[2]}, {d_, node_->out[1]});
  }
  void operator()(const RoiPool& op) {
    if (d_ == none) return;
    require(op.save_argmax, "does not save where its maxima were");
    const Shape& map = spec(0).shape;
    pass(RoiPoolBackward{op, map[0], map[1], map[2]}, {d_, node_->out[1], node_->in[1]});
  }
  void operator()(const RoiAlign& op) {
    const Shape& map = spec(0).shape;
    pass(RoiAlignBackward{op, map[0], map[1], map[2]}, {d_, node_->in[1]});
  }
  void operator()(const Add&) {
    if (d_ == none) return;
    for (std::size_t i : {0, 1})
      if (wanted(node_->in[i])) add_to(node_->in[i], d_);
  }

  // A loss computes its gradient along with its value.
  void operator()(const SoftmaxLoss&) { from_loss(); }
  void operator()(const SmoothL1Loss&) { from_loss(); }

  // Choices, and everything that only choices read.
  void operator()(const Softmax&) { stop(); }
  void operator()(const DecodeProposals&) { stop(); }
  void operator()(const TopK&) { stop(); }
  void operator()(const Nms&) { stop(); }
  void operator()(const DecodeBoxes&) { stop(); }
  void operator()(const SelectDetections&) { stop(); }
  void operator()(const AnchorTargets&) { stop(); }
  void operator()(const RoiTargets&) { stop(); }
  void operator()(const Preprocess&) { stop(); }
  void operator()(const InputUnits&) { stop(); }

  // Training nodes come after the losses, never before.
  void operator()(const ReluBackward&) { stop(); }
  void operator()(const Conv2dBackwardData&) { stop(); }
  void operator()(const Conv2dBackwardWeight&) { stop(); }
  void operator()(const LinearBackwardData&) { stop(); }
  void operator()(const LinearBackwardWeight&) { stop(); }
  void operator()(const MaxPoolBackward&) { stop(); }
  void operator()(const LrnBackward&) { stop(); }
  void operator()(const RoiPoolBackward&) { stop(); }
  void operator()(const RoiAlignBackward&) { stop(); }
  void operator()(const ClipGradients&) { stop(); }
  void operator()(const Sgd&) { stop(); }

 private:
  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }
  bool wanted(ValueId id) const { return wanted_[index(id)]; }
  const TensorSpec& spec(std::size_t input) const { return graph_.value(node_->in[input]).spec; }
  void require(bool ok, std::string_view otherwise) const {
    if (!ok)
      throw Error(ErrorCode::bad_model, fmt::format("{}: cannot be trained, it {}", node_->layer, otherwise));
  }
  void stop() const { require(d_ == none, fmt::format("has no backward ({})", name_of(node_->op))); }

  bool trained() const {
    const bool weight = graph_.value(node_->in[1]).role == Role::state,
               bias = graph_.value(node_->in[2]).role == Role::state;
    require(weight == bias, "has only one of weight and bias frozen");
    return weight;
  }

  std::vector<ValueId> gradient_states() {
    std::vector<ValueId> states;
    for (std::size_t i : {1, 2}) {
      const Value& weight = graph_.value(node_->in[i]);
      const std::string name = gradient_name(weight.name);
      const TensorSpec tensor = weight.spec;
      const ValueId there = graph_.find(name);
      require(there == none, "shares its weight with another layer");
      states.push_back(graph_.state(name, tensor));
    }
    return states;
  }

  // Appends the node that makes the gradient of input `input` out of `from`.
  void give(std::size_t input, Op op, std::vector<ValueId> from) {
    const ValueId target = node_->in[input];
    const std::string name =
        graph_.value(target).name + (gradient_[index(target)] == none ? "@d" : "@d of " + node_->layer);
    add_to(target, graph_.add1(std::move(op), node_->layer, Stage::backward, std::move(from), name));
  }
  void pass(Op op, std::vector<ValueId> from) {
    if (d_ != none && wanted(node_->in[0])) give(0, std::move(op), std::move(from));
  }
  void from_loss() {
    if (wanted(node_->in[0])) add_to(node_->in[0], node_->out[1]);
  }
  void add_to(ValueId target, ValueId gradient) {
    ValueId& sum = gradient_[index(target)];
    sum = sum == none ? gradient
                      : graph_.add1(Add{}, node_->layer, Stage::backward, {sum, gradient},
                                    fmt::format("{}@d with {}", graph_.value(target).name, node_->layer));
  }

  Graph& graph_;
  bool accumulate_;
  std::vector<bool> wanted_;       // by ValueId: a state lies behind it
  std::vector<ValueId> gradient_;  // by ValueId
  const Node* node_ = nullptr;
  ValueId d_ = none;
};

}  // namespace

std::string gradient_name(const std::string& weight) { return weight + "@grad"; }

void append_backward(Graph& graph, bool accumulate) { Backward(graph, accumulate); }

}  // namespace frcnn
