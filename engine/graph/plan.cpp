#include "graph/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace frcnn {
namespace {

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

bool alive_together(const Buffer& a, const Buffer& b) { return a.first <= b.last && b.first <= a.last; }

// The lowest offset at which `buffer` overlaps no placed buffer that is alive at the same time.
std::size_t first_gap(const Buffer& buffer, const std::vector<Buffer>& placed, std::size_t alignment) {
  std::vector<const Buffer*> rivals;
  for (const Buffer& other : placed)
    if (alive_together(buffer, other)) rivals.push_back(&other);
  std::sort(rivals.begin(), rivals.end(), [](const Buffer* a, const Buffer* b) { return a->offset < b->offset; });
  std::size_t offset = 0;
  for (const Buffer* rival : rivals) {
    if (offset + buffer.bytes <= rival->offset) break;
    offset = std::max(offset, round_up(rival->offset + rival->bytes, alignment));
  }
  return offset;
}

}  // namespace

Plan make_plan(const Graph& graph, std::span<const std::size_t> workspace_bytes, std::size_t alignment) {
  const int last_node = static_cast<int>(graph.nodes().size());
  Plan plan;
  plan.offset.assign(graph.values().size(), Plan::npos);
  plan.workspace_offset.assign(graph.nodes().size(), Plan::npos);

  std::vector<Buffer> wanted;
  std::vector<std::size_t*> slot;
  std::vector<Buffer> lives(graph.values().size());
  for (std::size_t i = 0; i < lives.size(); ++i) {
    const Value& value = graph.values()[i];
    lives[i] = {value.name, 0, value.spec.bytes(), last_node, -1};
    if (value.role == Role::input) lives[i].first = lives[i].last = -1;
    if (value.kept) lives[i].last = last_node;
  }
  for (int n = 0; n < last_node; ++n) {
    const Node& node = graph.nodes()[static_cast<std::size_t>(n)];
    for (ValueId id : node.out) {
      Buffer& life = lives[static_cast<std::size_t>(id)];
      life.first = std::min(life.first, n);
      life.last = std::max(life.last, n);
    }
    for (ValueId id : node.in) lives[static_cast<std::size_t>(id)].last = std::max(lives[static_cast<std::size_t>(id)].last, n);
  }
  for (std::size_t i = 0; i < lives.size(); ++i) {
    if (graph.values()[i].role == Role::weight) continue;
    // A count that somebody trims rows by lives as long as what it trims.
    const ValueId count = graph.values()[i].count;
    if (count >= 0) lives[static_cast<std::size_t>(count)].last = std::max(lives[static_cast<std::size_t>(count)].last, lives[i].last);
  }
  for (std::size_t i = 0; i < lives.size(); ++i) {
    if (graph.values()[i].role == Role::weight) continue;
    wanted.push_back(lives[i]);
    slot.push_back(&plan.offset[i]);
    plan.activation_bytes += lives[i].bytes;
  }
  for (std::size_t n = 0; n < workspace_bytes.size(); ++n) {
    if (workspace_bytes[n] == 0) continue;
    const int at = static_cast<int>(n);
    wanted.push_back({graph.nodes()[n].layer + " (workspace)", 0, workspace_bytes[n], at, at});
    slot.push_back(&plan.workspace_offset[n]);
  }

  std::vector<std::size_t> order(wanted.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return wanted[a].bytes > wanted[b].bytes; });
  for (std::size_t i : order) {
    Buffer buffer = wanted[i];
    buffer.offset = first_gap(buffer, plan.buffers, alignment);
    *slot[i] = buffer.offset;
    plan.arena_bytes = std::max(plan.arena_bytes, round_up(buffer.offset + buffer.bytes, alignment));
    plan.buffers.push_back(std::move(buffer));
  }
  return plan;
}

std::string to_string(const Plan& plan) {
  std::string text = fmt::format("{:<32} {:>14} {:>14} {:>6} {:>6}\n", "value", "offset", "bytes", "first", "last");
  std::vector<const Buffer*> rows;
  for (const Buffer& buffer : plan.buffers) rows.push_back(&buffer);
  std::stable_sort(rows.begin(), rows.end(), [](const Buffer* a, const Buffer* b) { return a->first < b->first; });
  for (const Buffer* row : rows)
    text += fmt::format("{:<32} {:>14} {:>14} {:>6} {:>6}\n", row->name, row->offset, row->bytes, row->first, row->last);
  return text + fmt::format("arena {} bytes for {} bytes of values\n", plan.arena_bytes, plan.activation_bytes);
}

}  // namespace frcnn
