#include "graph/graph.h"

#include <fmt/format.h>

#include <algorithm>

#include "frcnn/error.h"
#include "graph/shapes.h"

namespace frcnn {

std::string_view name_of(const Op& op) {
  struct Names {
    std::string_view operator()(const Preprocess&) const { return "preprocess"; }
    std::string_view operator()(const Conv2d&) const { return "conv2d"; }
    std::string_view operator()(const Relu&) const { return "relu"; }
    std::string_view operator()(const Scale&) const { return "scale"; }
    std::string_view operator()(const MaxPool&) const { return "max_pool"; }
    std::string_view operator()(const Lrn&) const { return "lrn"; }
    std::string_view operator()(const Linear&) const { return "linear"; }
    std::string_view operator()(const Softmax&) const { return "softmax"; }
    std::string_view operator()(const DecodeProposals&) const { return "decode_proposals"; }
    std::string_view operator()(const TopK&) const { return "top_k"; }
    std::string_view operator()(const Nms&) const { return "nms"; }
    std::string_view operator()(const RoiPool&) const { return "roi_pool"; }
    std::string_view operator()(const RoiAlign&) const { return "roi_align"; }
    std::string_view operator()(const DecodeBoxes&) const { return "decode_boxes"; }
    std::string_view operator()(const SelectDetections&) const { return "select_detections"; }
    std::string_view operator()(const InputUnits&) const { return "input_units"; }
    std::string_view operator()(const Add&) const { return "add"; }
    std::string_view operator()(const ReluBackward&) const { return "relu_backward"; }
    std::string_view operator()(const Conv2dBackwardData&) const { return "conv2d_backward_data"; }
    std::string_view operator()(const Conv2dBackwardWeight&) const { return "conv2d_backward_weight"; }
    std::string_view operator()(const LinearBackwardData&) const { return "linear_backward_data"; }
    std::string_view operator()(const LinearBackwardWeight&) const { return "linear_backward_weight"; }
    std::string_view operator()(const MaxPoolBackward&) const { return "max_pool_backward"; }
    std::string_view operator()(const LrnBackward&) const { return "lrn_backward"; }
    std::string_view operator()(const RoiPoolBackward&) const { return "roi_pool_backward"; }
    std::string_view operator()(const RoiAlignBackward&) const { return "roi_align_backward"; }
    std::string_view operator()(const Dropout&) const { return "dropout"; }
    std::string_view operator()(const AnchorTargets&) const { return "anchor_targets"; }
    std::string_view operator()(const RoiTargets&) const { return "roi_targets"; }
    std::string_view operator()(const SoftmaxLoss&) const { return "softmax_loss"; }
    std::string_view operator()(const SmoothL1Loss&) const { return "smooth_l1_loss"; }
    std::string_view operator()(const ClipGradients&) const { return "clip_gradients"; }
    std::string_view operator()(const Sgd&) const { return "sgd"; }
  };
  return std::visit(Names{}, op);
}

namespace {

void require_new(const Graph& graph, const std::string& name) {
  if (graph.find(name) >= 0)
    throw Error(ErrorCode::bad_model, fmt::format("{}: two values have this name", name));
}

}  // namespace

ValueId Graph::input(std::string name, TensorSpec spec) {
  require_new(*this, name);
  values_.push_back({std::move(name), spec, Role::input, false, -1});
  return static_cast<ValueId>(values_.size()) - 1;
}

ValueId Graph::weight(std::string name, Shape shape) {
  require_new(*this, name);
  values_.push_back({std::move(name), {shape, DType::f32}, Role::weight, false, -1});
  return static_cast<ValueId>(values_.size()) - 1;
}

ValueId Graph::state(std::string name, TensorSpec spec) {
  require_new(*this, name);
  values_.push_back({std::move(name), spec, Role::state, false, -1});
  return static_cast<ValueId>(values_.size()) - 1;
}

std::vector<ValueId> Graph::add(Op op, std::string layer, Stage stage, std::vector<ValueId> in,
                                std::vector<std::string> out_names) {
  std::vector<TensorSpec> specs;
  for (ValueId id : in) specs.push_back(value(id).spec);
  const std::vector<TensorSpec> out = infer(op, specs, layer);
  if (out.size() != out_names.size())
    throw Error(ErrorCode::bad_model,
                fmt::format("{}: makes {} outputs, {} names given", layer, out.size(), out_names.size()));
  for (const std::string& name : out_names) require_new(*this, name);
  std::vector<ValueId> ids;
  for (std::size_t i = 0; i < out.size(); ++i) {
    ids.push_back(static_cast<ValueId>(values_.size()));
    values_.push_back({std::move(out_names[i]), out[i], Role::temp, false, -1});
  }
  nodes_.push_back({std::move(op), std::move(layer), stage, std::move(in), ids});
  return ids;
}

void Graph::add_into(Op op, std::string layer, Stage stage, std::vector<ValueId> in,
                     std::vector<ValueId> states) {
  std::vector<TensorSpec> specs;
  for (ValueId id : in) specs.push_back(value(id).spec);
  const std::vector<TensorSpec> out = infer(op, specs, layer);
  if (out.size() != states.size())
    throw Error(ErrorCode::bad_model,
                fmt::format("{}: makes {} outputs, {} states given", layer, out.size(), states.size()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const Value& target = value(states[i]);
    if (target.role != Role::state || target.spec != out[i])
      throw Error(ErrorCode::bad_model,
                  fmt::format("{}: makes {} {}, which cannot be written to {} ({} {})", layer,
                              name_of(out[i].dtype), to_string(out[i].shape), target.name,
                              name_of(target.spec.dtype), to_string(target.spec.shape)));
  }
  nodes_.push_back({std::move(op), std::move(layer), stage, std::move(in), std::move(states)});
}

void Graph::keep(ValueId id) { values_[static_cast<std::size_t>(id)].kept = true; }

void Graph::store_as(ValueId id, DType dtype) { values_[static_cast<std::size_t>(id)].spec.dtype = dtype; }

void Graph::set_count(ValueId id, ValueId count) { values_[static_cast<std::size_t>(id)].count = count; }

ValueId Graph::find(std::string_view name) const {
  for (std::size_t i = 0; i < values_.size(); ++i)
    if (values_[i].name == name) return static_cast<ValueId>(i);
  return -1;
}

Graph rebuild(const Graph& from, std::vector<Node> nodes) {
  std::vector<char> used(from.values().size(), 0);
  auto use = [&](ValueId id) { used[static_cast<std::size_t>(id)] = 1; };
  for (const Node& node : nodes) {
    std::for_each(node.in.begin(), node.in.end(), use);
    std::for_each(node.out.begin(), node.out.end(), use);
  }
  // An input that the caller wants to read back stays, although no node reads it (the scores of given RoIs).
  for (std::size_t i = 0; i < used.size(); ++i)
    if (from.values()[i].kept && from.values()[i].role == Role::input) used[i] = 1;
  // A count may point at a value that no remaining node touches; then the rows all count.
  std::vector<ValueId> renumbered(used.size(), -1);
  Graph graph;
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (!used[i]) continue;
    renumbered[i] = static_cast<ValueId>(graph.values_.size());
    graph.values_.push_back(from.values()[i]);
  }
  for (Value& value : graph.values_)
    if (value.count >= 0) value.count = renumbered[static_cast<std::size_t>(value.count)];
  auto renumber = [&](ValueId& id) { id = renumbered[static_cast<std::size_t>(id)]; };
  for (Node& node : nodes) {
    std::for_each(node.in.begin(), node.in.end(), renumber);
    std::for_each(node.out.begin(), node.out.end(), renumber);
  }
  graph.nodes_ = std::move(nodes);
  return graph;
}

bool is_internal(const Value& value) { return value.name.find('@') != std::string::npos; }

std::string to_dot(const Graph& graph) {
  static constexpr std::array<std::string_view, stage_names.size()> fill{
      "#f2f2f2", "#dbe9f6", "#e2f0d9", "#fff2cc", "#f8e0d8", "#e6e0ec", "#fde9d9", "#d9d9d9"};
  std::string dot =
      "digraph frcnn {\n  rankdir=TB;\n  node [shape=box, style=filled, fontname=\"Helvetica\", "
      "fontsize=11];\n"
      "  edge [fontname=\"Helvetica\", fontsize=9];\n";
  std::vector<int> producer(graph.values().size(), -1);
  for (std::size_t i = 0; i < graph.values().size(); ++i)
    if (graph.values()[i].role == Role::input)
      dot += fmt::format("  v{} [label=\"{}\\n{}\", shape=ellipse, fillcolor=\"white\"];\n", i,
                         graph.values()[i].name, to_string(graph.values()[i].spec.shape));
  for (std::size_t n = 0; n < graph.nodes().size(); ++n) {
    const Node& node = graph.nodes()[n];
    std::string weight;
    for (ValueId id : node.in)
      if ((graph.value(id).role == Role::weight || graph.value(id).role == Role::state) &&
          graph.value(id).spec.shape.rank > 1)
        weight = "\\n" + to_string(graph.value(id).spec.shape);
    dot += fmt::format("  n{} [label=\"{}\\n{}{}\", fillcolor=\"{}\"];\n", n, node.layer, name_of(node.op),
                       weight, fill[static_cast<std::size_t>(node.stage)]);
    for (ValueId id : node.out) producer[static_cast<std::size_t>(id)] = static_cast<int>(n);
  }
  for (std::size_t n = 0; n < graph.nodes().size(); ++n) {
    for (ValueId id : graph.nodes()[n].in) {
      const Value& value = graph.value(id);
      if (value.role == Role::weight || value.role == Role::state) continue;
      const int from = producer[static_cast<std::size_t>(id)];
      const std::string source = from >= 0 ? fmt::format("n{}", from) : fmt::format("v{}", id);
      dot += fmt::format("  {} -> n{} [label=\" {} {}\"];\n", source, n, value.name,
                         to_string(value.spec.shape));
    }
  }
  return dot + "}\n";
}

}  // namespace frcnn
