#include "graph/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace frcnn {
namespace {

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

bool alive_together(const Buffer& a, const Buffer& b) { return a.first <= b.last && b.first <= a.last; }

// Weights and states have memory of their own, beside the arena.
bool lives_elsewhere(const Value& value) { return value.role == Role::weight || value.role == Role::state; }

// Buffers that lie one behind the other, each with a lifetime of its own. Offsets count from the group's
// start until the group is placed.
struct Group {
  std::vector<Buffer> buffers;
  std::vector<std::size_t*> slots;  // where each one's offset is to be written
  std::size_t bytes = 0;

  void add(Buffer buffer, std::size_t* slot, std::size_t alignment) {
    buffer.offset = bytes;
    bytes = round_up(bytes + buffer.bytes, alignment);
    buffers.push_back(std::move(buffer));
    slots.push_back(slot);
  }
};

// The lowest offset at which no buffer of the group overlaps a placed one that is alive at the same time.
// Every step leaves an offset at which two do for the next one at which these two do not, so none that fits
// is skipped.
std::size_t first_gap(const Group& group, const std::vector<Buffer>& placed, std::size_t alignment) {
  std::size_t offset = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (const Buffer& buffer : group.buffers) {
      for (const Buffer& rival : placed) {
        const std::size_t begin = offset + buffer.offset, end = rival.offset + rival.bytes;
        if (!alive_together(buffer, rival) || begin >= end || rival.offset >= begin + buffer.bytes) continue;
        offset = round_up(end - buffer.offset, alignment);
        moved = true;
      }
    }
  }
  return offset;
}

}  // namespace

Plan make_plan(const Graph& graph, std::span<const std::size_t> workspace_bytes, std::size_t alignment) {
  const int last_node = static_cast<int>(graph.nodes().size());
  Plan plan;
  plan.offset.assign(graph.values().size(), Plan::npos);
  plan.workspace_offset.assign(graph.nodes().size(), Plan::npos);

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
    for (ValueId id : node.in)
      lives[static_cast<std::size_t>(id)].last = std::max(lives[static_cast<std::size_t>(id)].last, n);
  }
  for (std::size_t i = 0; i < lives.size(); ++i) {
    if (lives_elsewhere(graph.values()[i])) continue;
    // A count that somebody trims rows by lives as long as what it trims.
    const ValueId count = graph.values()[i].count;
    if (count >= 0)
      lives[static_cast<std::size_t>(count)].last =
          std::max(lives[static_cast<std::size_t>(count)].last, lives[i].last);
  }
  Group inputs, outputs;
  std::vector<Group> groups;
  for (std::size_t i = 0; i < lives.size(); ++i) {
    const Value& value = graph.values()[i];
    if (lives_elsewhere(value)) continue;
    plan.activation_bytes += lives[i].bytes;
    Group& group = value.role == Role::input ? inputs : value.kept ? outputs : groups.emplace_back();
    group.add(lives[i], &plan.offset[i], alignment);
  }
  for (std::size_t n = 0; n < workspace_bytes.size(); ++n) {
    if (workspace_bytes[n] == 0) continue;
    const int at = static_cast<int>(n);
    groups.emplace_back().add({graph.nodes()[n].layer + " (workspace)", 0, workspace_bytes[n], at, at},
                              &plan.workspace_offset[n], alignment);
  }
  groups.push_back(std::move(inputs));
  groups.push_back(std::move(outputs));
  Region* const regions[] = {&plan.inputs, &plan.outputs};

  std::vector<std::size_t> order(groups.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return groups[a].bytes > groups[b].bytes; });
  for (std::size_t g : order) {
    Group& group = groups[g];
    const std::size_t offset = first_gap(group, plan.buffers, alignment);
    if (g + 2 >= groups.size()) *regions[g + 2 - groups.size()] = {offset, group.bytes};
    plan.arena_bytes = std::max(plan.arena_bytes, offset + group.bytes);
    for (std::size_t i = 0; i < group.buffers.size(); ++i) {
      *group.slots[i] = group.buffers[i].offset += offset;
      plan.buffers.push_back(std::move(group.buffers[i]));
    }
  }
  return plan;
}

std::string to_string(const Plan& plan) {
  std::string text =
      fmt::format("{:<32} {:>14} {:>14} {:>6} {:>6}\n", "value", "offset", "bytes", "first", "last");
  std::vector<const Buffer*> rows;
  for (const Buffer& buffer : plan.buffers) rows.push_back(&buffer);
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Buffer* a, const Buffer* b) { return a->first < b->first; });
  for (const Buffer* row : rows)
    text += fmt::format("{:<32} {:>14} {:>14} {:>6} {:>6}\n", row->name, row->offset, row->bytes, row->first,
                        row->last);
  return text +
         fmt::format("arena {} bytes for {} bytes of values\n", plan.arena_bytes, plan.activation_bytes);
}

}  // namespace frcnn
