// The part of a detector that both devices compute to the bit: everything behind convolutions and fully
// connected layers, as a graph of its own with their results as inputs.
#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "graph/graph.h"

namespace frcnn::test {

inline Graph behind_the_heads(const Graph& whole) {
  Graph graph;
  std::map<ValueId, ValueId> at;
  for (const Node& node : whole.nodes()) {
    const bool wanted =
        std::holds_alternative<Softmax>(node.op) || std::holds_alternative<DecodeProposals>(node.op) ||
        std::holds_alternative<TopK>(node.op) || std::holds_alternative<Nms>(node.op) ||
        std::holds_alternative<RoiPool>(node.op) || std::holds_alternative<RoiAlign>(node.op) ||
        std::holds_alternative<DecodeBoxes>(node.op) || std::holds_alternative<SelectDetections>(node.op);
    if (!wanted) continue;
    std::vector<ValueId> in;
    for (ValueId id : node.in) {
      if (!at.count(id)) at[id] = graph.input(whole.value(id).name, whole.value(id).spec);
      in.push_back(at[id]);
    }
    std::vector<std::string> names;
    for (ValueId id : node.out) names.push_back(whole.value(id).name);
    const std::vector<ValueId> out = graph.add(node.op, node.layer, node.stage, in, names);
    for (std::size_t i = 0; i < out.size(); ++i) {
      at[node.out[i]] = out[i];
      graph.keep(out[i]);
    }
  }
  return graph;
}

}  // namespace frcnn::test
