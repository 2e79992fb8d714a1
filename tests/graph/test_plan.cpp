#include <random>

#include "catch.h"
#include "graph/lower.h"
#include "graph/plan.h"
#include "graph/random_graph.h"

using namespace frcnn;

namespace {

// Runs the plan on bytes: every value fills its buffer with its own mark, and every reader must still find the mark.
// Knows nothing of the planner's lifetimes, so a wrong lifetime shows as an overwritten value.
void simulate(const Graph& graph, const Plan& plan, const std::vector<std::size_t>& workspaces) {
  std::vector<int> arena(plan.arena_bytes, -1);
  const auto bytes = [&](ValueId id) { return graph.value(id).spec.bytes(); };
  const auto write = [&](std::size_t offset, std::size_t n, int mark) {
    REQUIRE(offset % 256 == 0);
    REQUIRE(offset + n <= arena.size());
    std::fill_n(arena.begin() + static_cast<std::ptrdiff_t>(offset), n, mark);
  };
  const auto intact = [&](ValueId id) {
    const std::size_t offset = plan.offset[static_cast<std::size_t>(id)];
    for (std::size_t i = 0; i < bytes(id); ++i)
      if (arena[offset + i] != id) return false;
    return true;
  };
  for (std::size_t i = 0; i < graph.values().size(); ++i)
    if (graph.values()[i].role == Role::input) write(plan.offset[i], bytes(static_cast<ValueId>(i)), static_cast<int>(i));
  for (std::size_t n = 0; n < graph.nodes().size(); ++n) {
    const Node& node = graph.nodes()[n];
    for (ValueId id : node.out) write(plan.offset[static_cast<std::size_t>(id)], bytes(id), id);
    if (workspaces[n]) write(plan.workspace_offset[n], workspaces[n], -2);
    // Outputs and workspace are written while the inputs are read: all must be whole now.
    for (ValueId id : node.in)
      if (graph.value(id).role != Role::weight) REQUIRE(intact(id));
    for (ValueId id : node.out) REQUIRE(intact(id));
  }
  for (std::size_t i = 0; i < graph.values().size(); ++i)
    if (graph.values()[i].kept && graph.values()[i].role != Role::weight) REQUIRE(intact(static_cast<ValueId>(i)));
}

}  // namespace

TEST_CASE("no value of 500 random graphs is overwritten while somebody needs it", "[plan]") {
  std::size_t arena = 0, values = 0;
  for (unsigned seed = 0; seed < 500; ++seed) {
    INFO("seed " << seed);
    std::mt19937 rng(seed + 1000);
    const Graph graph = lower(test::random_graph(seed, 2 + static_cast<int>(seed % 30)), {true, true}, {});
    std::vector<std::size_t> workspaces;
    for (std::size_t n = 0; n < graph.nodes().size(); ++n) workspaces.push_back(rng() % 3 ? 0 : rng() % 3000);
    const Plan plan = make_plan(graph, workspaces);
    simulate(graph, plan, workspaces);
    arena += plan.arena_bytes;
    values += plan.activation_bytes;
  }
  CHECK(arena < values);   // it reuses memory at all
}

TEST_CASE("a chain needs two neighbours at a time", "[plan]") {
  Graph graph;
  ValueId top = graph.input("in", {Shape{1, 16, 16, 4}});
  for (int i = 0; i < 10; ++i)
    top = graph.add1(Lrn{}, "l" + std::to_string(i), Stage::backbone, {top}, "v" + std::to_string(i));
  graph.keep(top);
  const std::vector<std::size_t> none(10, 0);
  const Plan plan = make_plan(graph, none);
  CHECK(plan.arena_bytes == 2 * 16 * 16 * 4 * sizeof(float));
  CHECK(plan.activation_bytes == 11 * 16 * 16 * 4 * sizeof(float));
  CHECK(to_string(plan).find("v9") != std::string::npos);
}
