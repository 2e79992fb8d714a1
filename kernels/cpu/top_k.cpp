// The k best candidates of each image, in the one order of scores (score_order.h). Each candidate becomes a
// 64-bit key whose integer order is that order, so selection and sorting compare single integers: O(M + k log
// k).
#include <algorithm>
#include <limits>
#include <string>

#include "carve.h"
#include "frcnn/error.h"
#include "kernels.h"
#include "parallel.h"
#include "score_order.h"

namespace frcnn::cpu {
namespace {

// Writes the best `capacity` of `entries` candidates and zeros behind them; returns how many there are.
std::int32_t select(const Box* boxes, const float* scores, std::int64_t entries, std::int64_t capacity,
                    std::uint64_t* keys, Box* out_boxes, float* out_scores) {
  std::int64_t candidates = 0;
  for (std::int64_t i = 0; i < entries; ++i) {
    if (takes_part(scores[i])) keys[candidates++] = rank_key(scores[i], static_cast<std::uint32_t>(i));
  }
  const std::int64_t count = std::min(candidates, capacity);
  if (count < candidates) std::nth_element(keys, keys + count, keys + candidates);
  std::sort(keys, keys + count);
  for (std::int64_t i = 0; i < count; ++i) {
    out_boxes[i] = boxes[index_of(keys[i])];
    out_scores[i] = scores[index_of(keys[i])];
  }
  std::fill(out_boxes + count, out_boxes + capacity, Box{0, 0, 0, 0});
  std::fill(out_scores + count, out_scores + capacity, 0.0f);
  return static_cast<std::int32_t>(count);
}

}  // namespace

Prepared prepare(const TopK&, const KernelSpec& spec, const Settings& settings) {
  const std::int64_t batch = spec.in[1].shape[0], entries = spec.in[1].shape[1],
                     capacity = spec.out[1].shape[1];
  if (entries > std::numeric_limits<std::int32_t>::max()) {
    throw Error(ErrorCode::unsupported,
                "top_k: " + std::to_string(entries) + " candidates per image; at most " +
                    std::to_string(std::numeric_limits<std::int32_t>::max()) + " are supported");
  }
  const std::int64_t chunks = std::clamp<std::int64_t>(settings.threads, 1, std::max<std::int64_t>(batch, 1));
  Carver carver;
  for (std::int64_t i = 0; i < chunks; ++i) carver.take<std::uint64_t>(entries);
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.workspace_bytes = carver.used();
  prepared.run = [batch, entries, capacity, chunks](const KernelArgs& args) {
    parallel_for(batch, static_cast<int>(chunks), [&](std::int64_t begin, std::int64_t end, int chunk) {
      Carver memory(args.workspace);
      for (int i = 0; i < chunk; ++i) memory.take<std::uint64_t>(entries);
      auto* keys = memory.take<std::uint64_t>(entries);
      for (std::int64_t n = begin; n < end; ++n) {
        args.out[2].as<std::int32_t>()[n] = select(
            args.in[0].as<const Box>() + n * entries, args.in[1].as<const float>() + n * entries, entries,
            capacity, keys, args.out[0].as<Box>() + n * capacity, args.out[1].as<float>() + n * capacity);
      }
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
