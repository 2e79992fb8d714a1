// What the ops over RoIs share: one block makes one row of bins of one RoI, its threads take packs of
// channels.
#pragma once

#include "kernels.h"
#include "launch.h"
#include "own_map.h"
#include "storage.h"

namespace frcnn::cuda {

struct RoiMap {
  std::int64_t batch;
  int height, width, packs;
};

// The launcher of RoiPool or RoiAlign; kernel_of(Stored<T>, Lanes<n>) is the kernel for maps stored so.
template <class Op, class KernelOf>
Prepared prepare_over_rois(const Op& op, const KernelSpec& spec, const char* name,
                           const KernelOf& kernel_of) {
  const Shape& s = spec.in[0].shape;
  const dim3 grid = checked_grid(name, spec.in[1].shape[0], op.pooled_h);
  Prepared prepared;
  const DType storage = one_storage(spec.in[0].dtype, spec.out[0].dtype, name);
  with_packs(storage, s[3], name, [&](auto stored, auto lanes) {
    constexpr int width = decltype(lanes)::value;
    using Packs = Pack<typename decltype(stored)::type, width>;
    const RoiMap map{s[0], checked_int(name, s[1]), checked_int(name, s[2]), checked_int(name, s[3] / width)};
    prepared.implementation = std::string(name) + ":" + std::to_string(width);
    prepared.run = [op, map, grid, kernel = kernel_of(stored, lanes)](const KernelArgs& args) {
      if (grid.x == 0) return;
      launch(kernel, grid, dim3(128), 0, static_cast<cudaStream_t>(args.stream),
             args.in[0].template as<const Packs>(), args.in[1].template as<const float>(),
             args.in.size() > 2 ? args.in[2].template as<const std::int32_t>() : nullptr,
             args.out[0].template as<Packs>(), map, op);
    };
  });
  return prepared;
}

}  // namespace frcnn::cuda
