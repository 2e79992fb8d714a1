#include "graph/lower.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "frcnn/error.h"

namespace frcnn {

namespace {

// How often each value is read, by nodes or from outside (outputs and kept values).
std::vector<int> count_readers(const Graph& graph, const std::vector<char>& visible) {
  std::vector<int> readers(graph.values().size(), 0);
  for (const Node& node : graph.nodes())
    for (ValueId id : node.in) ++readers[static_cast<std::size_t>(id)];
  for (std::size_t i = 0; i < readers.size(); ++i) readers[i] += visible[i];
  return readers;
}

// Takes `next` into the producer's epilogue if the device can and the arithmetic stays the same.
bool absorb(Op& producer, const Op& next, const FusionSupport& fusions) {
  Epilogue* epilogue = nullptr;
  const bool linear = std::holds_alternative<Linear>(producer);
  if (linear) epilogue = &std::get<Linear>(producer).epilogue;
  if (auto* conv = std::get_if<Conv2d>(&producer)) epilogue = &conv->epilogue;
  if (!epilogue) return false;
  if (std::holds_alternative<Relu>(next) && fusions.relu && epilogue->scale == 1.0f &&
      !epilogue->max_pool_2x2) {
    epilogue->relu = true;
    return true;
  }
  if (const auto* scale = std::get_if<Scale>(&next);
      scale && linear && fusions.scale && epilogue->scale == 1.0f) {
    epilogue->scale = scale->factor;
    return true;
  }
  const auto* pool = std::get_if<MaxPool>(&next);
  if (pool && !linear && fusions.max_pool_2x2 && !epilogue->max_pool_2x2 && pool->kernel == 2 &&
      pool->stride == 2 && pool->pad == 0 && pool->rounding == Rounding::ceil) {
    epilogue->max_pool_2x2 = true;
    return true;
  }
  return false;
}

// A layer of the trunk or head, which can read and write 16-bit maps.
struct ReadsNarrow {
  template <typename T>
  bool operator()(const T&) const {
    return std::is_same_v<T, Conv2d> || std::is_same_v<T, Relu> || std::is_same_v<T, Scale> ||
           std::is_same_v<T, MaxPool> || std::is_same_v<T, Lrn> || std::is_same_v<T, Linear> ||
           std::is_same_v<T, RoiPool> || std::is_same_v<T, RoiAlign>;
  }
};

// Products are summed in fp32 and can be stored as anything; the other layers keep the type of what they
// read.
bool converts(const Op& op) {
  return std::holds_alternative<Conv2d>(op) || std::holds_alternative<Linear>(op) ||
         std::holds_alternative<Preprocess>(op);
}

// Backwards, since a layer between a score and the score's reader must stay wide as well; then forwards,
// since an input is f32 and stays so up to the first product.
void store_narrow(Graph& graph, DType storage) {
  std::vector<char> wide(graph.values().size(), 0);
  for (std::size_t n = graph.nodes().size(); n-- > 0;) {
    const Node& node = graph.nodes()[n];
    const bool passes_on = !converts(node.op) && wide[static_cast<std::size_t>(node.out.front())];
    if (!std::visit(ReadsNarrow{}, node.op) || passes_on)
      for (ValueId id : node.in) wide[static_cast<std::size_t>(id)] = 1;
  }
  for (const Node& node : graph.nodes()) {
    const bool makes_map = std::visit(ReadsNarrow{}, node.op) || std::holds_alternative<Preprocess>(node.op);
    const bool can = converts(node.op) || graph.value(node.in.front()).spec.dtype == storage;
    if (makes_map && can && !wide[static_cast<std::size_t>(node.out.front())])
      graph.store_as(node.out.front(), storage);
  }
}

}  // namespace

Graph lower(const Graph& graph, const FusionSupport& fusions, std::span<const std::string> keep,
            DType storage) {
  std::vector<char> visible(graph.values().size(), 0);
  for (std::size_t i = 0; i < visible.size(); ++i) visible[i] = graph.values()[i].kept;
  for (const std::string& name : keep) {
    const ValueId id = graph.find(name);
    if (id < 0)
      throw Error(ErrorCode::invalid_argument, fmt::format("{}: the graph has no such value", name));
    visible[static_cast<std::size_t>(id)] = 1;
  }

  // Backwards: a node stays if somebody sees one of its outputs or a staying node reads it. States are always
  // seen.
  std::vector<char> needed = visible;
  for (std::size_t i = 0; i < needed.size(); ++i) needed[i] |= graph.values()[i].role == Role::state;
  std::vector<char> stays(graph.nodes().size(), 0);
  for (std::size_t n = graph.nodes().size(); n-- > 0;) {
    const Node& node = graph.nodes()[n];
    stays[n] = std::any_of(node.out.begin(), node.out.end(),
                           [&](ValueId id) { return needed[static_cast<std::size_t>(id)]; });
    if (stays[n])
      for (ValueId id : node.in) needed[static_cast<std::size_t>(id)] = 1;
  }

  // Forwards: an elementwise node whose source nobody else reads moves into the source's producer.
  const std::vector<int> readers = count_readers(graph, visible);
  std::vector<Node> nodes;
  std::vector<int> producer(graph.values().size(), -1);
  for (std::size_t n = 0; n < graph.nodes().size(); ++n) {
    if (!stays[n]) continue;
    const Node& node = graph.nodes()[n];
    const auto source = static_cast<std::size_t>(node.in.front());
    if (producer[source] >= 0 && readers[source] == 1 && node.out.size() == 1) {
      Node& before = nodes[static_cast<std::size_t>(producer[source])];
      if (before.out.size() == 1 && absorb(before.op, node.op, fusions)) {
        before.out = node.out;
        producer[static_cast<std::size_t>(node.out.front())] = producer[source];
        continue;
      }
    }
    for (ValueId id : node.out) producer[static_cast<std::size_t>(id)] = static_cast<int>(nodes.size());
    nodes.push_back(node);
  }
  Graph lowered = rebuild(graph, std::move(nodes));
  for (const std::string& name : keep) {
    const ValueId id = lowered.find(name);
    if (id >= 0) lowered.keep(id);
  }
  const bool trains = std::any_of(lowered.values().begin(), lowered.values().end(),
                                  [](const Value& value) { return value.role == Role::state; });
  if (storage != DType::f32 && !trains) store_narrow(lowered, storage);
  return lowered;
}

}  // namespace frcnn
