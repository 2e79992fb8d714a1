// Where the lanes of a warp meet.
#include <cstring>
#include <memory>
#include <string>

#include "tests/simt/block.h"

namespace frcnn::simt {
namespace {

Meeting& meeting_for(std::vector<std::unique_ptr<Meeting>>& warp, unsigned mask) {
  for (auto& meeting : warp) {
    if (meeting->mask == mask) return *meeting;
  }
  warp.push_back(std::make_unique<Meeting>());
  warp.back()->mask = mask;
  return *warp.back();
}

std::string hex(unsigned mask) {
  const char* digits = "0123456789abcdef";
  std::string text = "0x";
  for (int shift = 28; shift >= 0; shift -= 4) text += digits[mask >> shift & 15u];
  return text;
}

unsigned returned_lanes(const Block& block, unsigned warp) {
  unsigned mask = 0;
  for (unsigned lane = 0; lane < 32 && warp * 32 + lane < block.threads.size(); ++lane) {
    if (block.threads[warp * 32 + lane].state == State::returned) mask |= 1u << lane;
  }
  return mask;
}

bool same(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

// Nothing is formatted unless something is wrong: this runs at every arrival of every lane.
void check_arrival(unsigned mask, unsigned needed, const char* operation, Participation participation,
                   Site site, const Meeting& meeting) {
  const unsigned lane = current->position.lane;
  const auto name = [&] { return std::string(operation) + " at " + to_string(site); };
  if (!(mask >> lane & 1u))
    fail(name() + ": lane " + std::to_string(lane) + " is not in its own mask " + hex(mask));
  if (participation == Participation::aligned && needed != 0xffffffffu) {
    fail(name() + " needs all 32 lanes; the warp has only " + lane_ranges(needed) + " in the mask " +
         hex(mask));
  }
  if (current_block->returned > 0) {
    const unsigned gone = returned_lanes(*current_block, current->linear / 32) & mask;
    if (gone) fail(name() + ": lanes " + lane_ranges(gone) + " of the mask " + hex(mask) + " have returned");
  }
  if (meeting.arrived && (!(meeting.site == site) || !same(meeting.operation, operation))) {
    fail("divergent warp: lane " + std::to_string(lane) + " is at " + name() + ", while lanes " +
         lane_ranges(meeting.arrived) + " wait at " + meeting.operation + " at " + to_string(meeting.site) +
         " for the same mask " + hex(mask));
  }
}

// Returns the token of this meeting, for those that order memory.
char* meet(unsigned mask, const char* operation, Participation participation, Site site, void* argument,
           void (*combine)(const Lanes&), bool orders) {
  const unsigned warp = current->linear / 32, lane = current->position.lane;
  const unsigned needed = mask & existing_lanes(*current_block, warp);
  Meeting& meeting = meeting_for(current_block->warps[warp], mask);
  check_arrival(mask, needed, operation, participation, site, meeting);
  char* const token = &meeting.token[meeting.generation & 1u];
  if (orders) release(token);
  meeting.operation = operation;
  meeting.site = site;
  meeting.lanes.argument[lane] = argument;
  meeting.arrived |= 1u << lane;
  if (meeting.arrived != needed) {
    current->state = State::collective;
    current->site = site;
    current->operation = operation;
    current->mask = mask;
    leave();
    return token;
  }
  combine(meeting.lanes);
  meeting.lanes = {};
  meeting.arrived = 0;
  ++meeting.generation;
  for (unsigned other = 0; other < 32; ++other) {
    if ((needed & ~(1u << lane)) >> other & 1u)
      current_block->threads[warp * 32 + other].state = State::ready;
  }
  return token;
}

}  // namespace

void collective(unsigned mask, const char* operation, Participation participation, Site site, void* argument,
                void (*combine)(const Lanes&)) {
  const Quiet quiet;
  meet(mask, operation, participation, site, argument, combine, false);
}

void order_warp(unsigned mask, Site site) {
  const Quiet quiet;
  char present = 0;
  acquire(meet(
      mask, "__syncwarp", Participation::masked, site, &present, [](const Lanes&) {}, true));
}

}  // namespace frcnn::simt
