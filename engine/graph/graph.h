// The program: one immutable list of nodes in run order over named values.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn {

using ValueId = int;

// A weight is constant while the program lives, and packed once. A state lives outside the program
// (runtime/states.h): nodes read it as the last run left it, and may write it.
enum class Role : std::uint8_t { input, weight, state, temp };

// The part of the pipeline a node belongs to, for timings.
enum class Stage : std::uint8_t { preprocess, backbone, rpn, proposals, head, loss, backward, update };
inline constexpr std::array<std::string_view, 8> stage_names{
    "preprocess", "backbone", "rpn", "proposals", "head", "loss", "backward", "update"};

struct Value {
  std::string name;  // the published top's name; an '@' marks a value that no published model names
  TensorSpec spec;
  Role role = Role::temp;
  bool kept = false;   // read from outside: must still be there when the program has run
  ValueId count = -1;  // an i32 [1] value that says how many leading rows mean something, or -1: all
};

struct Node {
  Op op;
  std::string layer;  // the published layer's name, for messages and tables
  Stage stage = Stage::backbone;
  std::vector<ValueId> in, out;
};

// Built front to back; shapes are inferred as nodes are added, so a finished graph is consistent.
class Graph {
 public:
  ValueId input(std::string name, TensorSpec spec);
  ValueId weight(std::string name, Shape shape);  // f32 in the published layout
  ValueId state(std::string name, TensorSpec spec);
  // Appends a node; its outputs take `out_names` in order. Throws as infer() does, or if a name is taken.
  std::vector<ValueId> add(Op op, std::string layer, Stage stage, std::vector<ValueId> in,
                           std::vector<std::string> out_names);
  ValueId add1(Op op, std::string layer, Stage stage, std::vector<ValueId> in, std::string out_name) {
    return add(std::move(op), std::move(layer), stage, std::move(in), {std::move(out_name)}).front();
  }
  // Appends a node whose outputs are the given states, which must have the shapes that infer() finds.
  void add_into(Op op, std::string layer, Stage stage, std::vector<ValueId> in, std::vector<ValueId> states);
  void store_as(ValueId id, DType dtype);     // of a value that a node makes
  void keep(ValueId id);                      // see Value::kept
  void set_count(ValueId id, ValueId count);  // see Value::count

  const std::vector<Value>& values() const { return values_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  const Value& value(ValueId id) const { return values_[static_cast<std::size_t>(id)]; }
  ValueId find(std::string_view name) const;  // -1 if there is none

 private:
  friend Graph rebuild(const Graph& values_of, std::vector<Node> nodes);
  std::vector<Value> values_;
  std::vector<Node> nodes_;
};

// A graph of `nodes` over the values of another one, values that nothing uses dropped, ids renumbered.
Graph rebuild(const Graph& values_of, std::vector<Node> nodes);

bool is_internal(const Value& value);    // its name contains '@'
std::string to_dot(const Graph& graph);  // Graphviz

}  // namespace frcnn
