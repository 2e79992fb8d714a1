// The file in which measured times of kernels are kept from run to run.
#pragma once

#include <string>

#include "model_io/kernel_times.h"

namespace frcnn {

// algos.json in frcnn's folder of $XDG_CACHE_HOME or ~/.cache; empty where the environment names neither.
std::string default_algo_cache();

// What the file holds; nothing if there is none. Throws Error(io) or Error(bad_file).
MachineTimes read_algo_cache(const std::string& path);

// Adds one entry to what the file holds by then, other processes' entries kept, and makes missing folders.
// The file is whole at any time; of two that add at the same moment one may be lost, and will be measured
// again. Where the file would be larger than its reader takes, the entries of other machines are dropped;
// where that is not enough, it stays as it is. Throws Error(io) or Error(bad_file).
void add_to_algo_cache(const std::string& path, const std::string& machine, const std::string& layer,
                       const KernelTimes& times);

}  // namespace frcnn
