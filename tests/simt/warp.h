// Block barriers, warp shuffles, votes, matches and reductions, and atomics: CUDA C++ Programming
// Guide, sections on synchronisation, warp functions and atomic functions. Stricter than the
// hardware in three ways, each of which is a bug worth hearing of: the lanes of one mask must be at the same
// line, no lane of a mask may have returned, and what a lane reads from one that does not take part is NaN.
#pragma once

#include <cstdint>
#include <cstring>

#include "tests/simt/engine.h"

namespace frcnn::simt {

template <class T>
struct Shuffle {
  T value;
  unsigned lane, source;  // source 32 and above: its own value
};

// Every lane's value becomes that of its source lane.
template <class T>
T shuffle(unsigned mask, const char* operation, T value, unsigned source, Site site) {
  static_assert(sizeof(T) <= 8, "a shuffle moves 2, 4 or 8 bytes");
  Shuffle<T> mine{value, lane_index(), source};
  collective(mask, operation, Participation::masked, site, &mine, [](const Lanes& lanes) {
    T before[32];
    for (unsigned lane = 0; lane < 32; ++lane) {
      if (lanes.has(lane)) {
        before[lane] = lanes.of<Shuffle<T>>(lane).value;
      } else {
        std::memset(static_cast<void*>(&before[lane]), 0xff, sizeof(T));
      }
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
      if (!lanes.has(lane)) continue;
      auto& to = lanes.of<Shuffle<T>>(lane);
      if (to.source < 32) to.value = before[to.source];
    }
  });
  return mine.value;
}

inline void check_width(int width) {
  if (width <= 0 || width > 32 || (width & (width - 1)) != 0) {
    fail("shuffle width " + std::to_string(width) + " is not a power of two up to 32");
  }
}

// Every lane brings one word and gets the mask of lanes whose word is not zero.
inline unsigned vote(unsigned mask, const char* operation, unsigned word, Site site) {
  unsigned mine = word;
  collective(mask, operation, Participation::masked, site, &mine, [](const Lanes& lanes) {
    unsigned result = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
      if (lanes.has(lane) && lanes.of<unsigned>(lane)) result |= 1u << lane;
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
      if (lanes.has(lane)) lanes.of<unsigned>(lane) = result;
    }
  });
  return mine;
}

template <class T, class Fold>
T reduce(unsigned mask, const char* operation, T value, Site site, Fold) {
  collective(mask, operation, Participation::masked, site, &value, [](const Lanes& lanes) {
    bool first = true;
    T result{};
    for (unsigned lane = 0; lane < 32; ++lane) {
      if (!lanes.has(lane)) continue;
      result = first ? lanes.of<T>(lane) : Fold{}(result, lanes.of<T>(lane));
      first = false;
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
      if (lanes.has(lane)) lanes.of<T>(lane) = result;
    }
  });
  return value;
}

template <class T>
struct Match {
  T value;
  unsigned lanes;
};

}  // namespace frcnn::simt

// --- the block
#define FRCNN_SIMT_SITE frcnn::simt::Site site = frcnn::simt::Site::here()

inline void __syncthreads(FRCNN_SIMT_SITE) { frcnn::simt::barrier(0, site); }
inline int __syncthreads_count(int predicate, FRCNN_SIMT_SITE) {
  return frcnn::simt::barrier(predicate, site).nonzero;
}
inline int __syncthreads_or(int predicate, FRCNN_SIMT_SITE) {
  return frcnn::simt::barrier(predicate, site).nonzero > 0;
}
inline int __syncthreads_and(int predicate, FRCNN_SIMT_SITE) {
  const frcnn::simt::Votes votes = frcnn::simt::barrier(predicate, site);
  return votes.nonzero == votes.threads;
}

[[noreturn]] inline void __trap() { frcnn::simt::fail("__trap"); }

// --- the warp
inline void __syncwarp(unsigned mask = 0xffffffffu, FRCNN_SIMT_SITE) { frcnn::simt::order_warp(mask, site); }
inline unsigned __activemask(FRCNN_SIMT_SITE) { return frcnn::simt::converged_lanes(site); }

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, FRCNN_SIMT_SITE) {
  frcnn::simt::check_width(width);
  const int lane = static_cast<int>(frcnn::simt::lane_index());
  return frcnn::simt::shuffle(mask, "__shfl_sync", value,
                              static_cast<unsigned>((lane & ~(width - 1)) | (source & (width - 1))), site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, FRCNN_SIMT_SITE) {
  frcnn::simt::check_width(width);
  const unsigned lane = frcnn::simt::lane_index(), in_group = lane & static_cast<unsigned>(width - 1);
  return frcnn::simt::shuffle(mask, "__shfl_up_sync", value, delta > in_group ? 32u : lane - delta, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, FRCNN_SIMT_SITE) {
  frcnn::simt::check_width(width);
  const unsigned lane = frcnn::simt::lane_index(),
                 left = static_cast<unsigned>(width) - 1 - lane % static_cast<unsigned>(width);
  return frcnn::simt::shuffle(mask, "__shfl_down_sync", value, delta > left ? 32u : lane + delta, site);
}
// A later group than its own cannot be reached; then it keeps its value.
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, FRCNN_SIMT_SITE) {
  frcnn::simt::check_width(width);
  const unsigned lane = frcnn::simt::lane_index(), source = (lane ^ static_cast<unsigned>(lane_mask)) & 31u;
  const unsigned last = lane | static_cast<unsigned>(width - 1);
  return frcnn::simt::shuffle(mask, "__shfl_xor_sync", value, source > last ? 32u : source, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, FRCNN_SIMT_SITE) {
  return frcnn::simt::vote(mask, "__ballot_sync", predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate, FRCNN_SIMT_SITE) {
  return frcnn::simt::vote(mask, "__any_sync", predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, FRCNN_SIMT_SITE) {
  return frcnn::simt::vote(mask, "__all_sync", predicate == 0, site) == 0;
}

template <class T>
unsigned __match_any_sync(unsigned mask, T value, FRCNN_SIMT_SITE) {
  using Match = frcnn::simt::Match<T>;
  Match mine{value, 0};
  frcnn::simt::collective(mask, "__match_any_sync", frcnn::simt::Participation::masked, site, &mine,
                          [](const frcnn::simt::Lanes& lanes) {
                            for (unsigned a = 0; a < 32; ++a) {
                              for (unsigned b = 0; lanes.has(a) && b < 32; ++b) {
                                if (lanes.has(b) && std::memcmp(&lanes.of<Match>(a).value,
                                                                &lanes.of<Match>(b).value, sizeof(T)) == 0) {
                                  lanes.of<Match>(a).lanes |= 1u << b;
                                }
                              }
                            }
                          });
  return mine.lanes;
}

#define FRCNN_SIMT_REDUCE(name, type, expression)                                                            \
  inline type name(unsigned mask, type value, FRCNN_SIMT_SITE) {                                             \
    return frcnn::simt::reduce(mask, #name, value, site, [](type a, type b) -> type { return expression; }); \
  }
FRCNN_SIMT_REDUCE(__reduce_add_sync, unsigned, a + b)
FRCNN_SIMT_REDUCE(__reduce_max_sync, unsigned, a < b ? b : a)
#undef FRCNN_SIMT_REDUCE
