// Kernels with one bug each, in a program of its own, because most of them end it:
//
//   simt_planted BUG ORDER        BUG as in the table below, ORDER forward, reverse, random1 or random2
//
// Exit status 0: the result was right; 1: it was wrong; 3: the emulator refused, and says why on standard
// error; any other comes from a sanitizer. `simt_planted none ORDER` runs every kernel without its bug and
// must end with 0.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "launch.h"
#include "ptx.h"

namespace {

using namespace frcnn;
using cuda::launch;
using cuda::SharedCarver;
using cuda::SharedSize;

constexpr int kThreads = 64;

// Reverses 64 numbers within the block, through shared memory.
template <bool bug>
__global__ void missing_barrier_kernel(const float* in, float* out) {
  SharedCarver carver;
  float* const tile = carver.take<float>(kThreads);
  const int i = threadIdx.x;
  tile[i] = in[i];  // missing_barrier: store
  if (!bug) __syncthreads();
  out[i] = tile[kThreads - 1 - i];  // missing_barrier: load
}

// The same within each warp.
template <bool bug>
__global__ void missing_syncwarp_kernel(const float* in, float* out) {
  SharedCarver carver;
  float* const tile = carver.take<float>(kThreads);
  const int i = threadIdx.x;
  tile[i] = in[i];  // missing_syncwarp: store
  if (!bug) __syncwarp();
  out[i] = tile[i ^ 31];  // missing_syncwarp: load
}

// Reverses twice; the second store must wait until everybody has loaded.
template <bool bug>
__global__ void missing_second_barrier_kernel(const float* in, float* out) {
  SharedCarver carver;
  float* const tile = carver.take<float>(kThreads);
  const int i = threadIdx.x;
  tile[i] = in[i];
  __syncthreads();
  const float v = tile[kThreads - 1 - i];  // missing_second_barrier: load
  if (!bug) __syncthreads();
  tile[i] = v + 100;  // missing_second_barrier: store
  __syncthreads();
  out[i] = tile[kThreads - 1 - i] - 100;
}

// The same within each warp.
template <bool bug>
__global__ void missing_second_syncwarp_kernel(const float* in, float* out) {
  SharedCarver carver;
  float* const tile = carver.take<float>(kThreads);
  const int i = threadIdx.x;
  tile[i] = in[i];
  __syncwarp();
  const float v = tile[i ^ 31];  // missing_second_syncwarp: load
  if (!bug) __syncwarp();
  tile[i] = v + 100;  // missing_second_syncwarp: store
  __syncwarp();
  out[i] = tile[i ^ 31] - 100;
}

// The next tile is fetched into the place of one that is still being read.
template <bool bug>
__global__ void early_refill_kernel(const float* in, float* out) {
  SharedCarver carver;
  float* const tile = carver.take<float>(kThreads);
  const int i = threadIdx.x;
  cuda::cp_async<4>(tile + i, in + i);
  cuda::cp_async_commit_group();
  cuda::cp_async_wait_group<0>();
  __syncthreads();
  const float v = tile[i ^ 1];
  if (!bug) __syncthreads();
  cuda::cp_async<4>(tile + i, in + (i ^ 1));
  cuda::cp_async_commit_group();
  cuda::cp_async_wait_group<0>();
  out[i] = (v + tile[i]) / 2 + (in[i] - in[i ^ 1]);
}

template <bool bug>
__global__ void shared_overrun_kernel(const float* in, float* out) {
  SharedCarver carver;
  float* const tile = carver.take<float>(kThreads);
  int* const other = carver.take<int>(kThreads);
  const int i = threadIdx.x;
  tile[i + (bug ? 1 : 0)] = in[i];
  other[i] = i;
  __syncthreads();
  out[i] = tile[other[i]];
}

template <bool bug>
__global__ void static_overrun_kernel(const float* in, float* out) {
  __shared__ float tile[kThreads];
  const int i = threadIdx.x;
  tile[i + (bug ? 1 : 0)] = in[i];
  __syncthreads();
  out[i] = tile[i];
}

template <bool bug>
__global__ void store_past_output_kernel(const float* in, float* out) {
  const int i = threadIdx.x;
  out[bug ? i + 1 : i] = in[i];
}

template <bool bug>
__global__ void early_return_kernel(const float* in, float* out) {
  SharedCarver carver;
  float* const tile = carver.take<float>(kThreads);
  const int i = threadIdx.x;
  tile[i] = in[i];
  if (bug && i == 5) return;
  __syncthreads();
  out[i] = tile[i];
}

template <bool bug>
__global__ void uninitialised_kernel(const float* in, float* out) {
  SharedCarver carver;
  float* const tile = carver.take<float>(kThreads);
  const int i = threadIdx.x;
  if (!bug || i != 17) tile[i] = in[i];
  __syncthreads();
  out[i] = tile[i];
}

template <bool bug>
__global__ void missing_wait_kernel(const float* in, float* out) {
  SharedCarver carver;
  float* const tile = carver.take<float>(kThreads);
  const int i = threadIdx.x;
  cuda::cp_async<4>(tile + i, in + i);
  cuda::cp_async_commit_group();
  cuda::cp_async_wait_group<bug ? 1 : 0>();
  __syncthreads();
  out[i] = tile[i];
}

// Two blocks of 32 write their halves; with the bug both write all of it.
template <bool bug>
__global__ void race_kernel(const float* in, float* out) {
  const int i = blockIdx.x * 32 + threadIdx.x;
  out[i] = in[i];                                         // race: one
  if (bug) out[kThreads - 1 - i] = in[kThreads - 1 - i];  // race: other
}

template <bool bug>
__global__ void divergent_kernel(const float* in, float* out) {
  const int i = threadIdx.x;
  float v = in[i];
  if (bug && i % 32 < 16) {
    v = __shfl_xor_sync(0xffffffffu, v, 0);  // divergent: one
  } else {
    v = __shfl_xor_sync(0xffffffffu, v, 0);  // divergent: other
  }
  out[i] = v;
}

// Lanes that skip a collective which names them.
template <bool bug>
__global__ void absent_lane_kernel(const float* in, float* out) {
  const int i = threadIdx.x;
  float v = in[i];
  if (!bug || i != 40) v = __shfl_sync(0xffffffffu, v, i % 32);
  out[i] = v;
  __syncthreads();
}

// Block 0 waits for block 1; without the bug it does so in a cooperative launch.
__global__ void spin_kernel(const float* in, float* out, unsigned* flag) {
  const int i = threadIdx.x;
  if (blockIdx.x == 0) {
    cuda::spin_wait([&] { return cuda::ld_acquire(flag) != 0; });
    out[i] = out[i + 32];
  } else {
    out[i + 32] = in[i];
    __syncthreads();
    if (i == 0) cuda::st_release(flag, 1);
  }
}

template <bool bug>
__global__ void stack_overrun_kernel(const float* in, float* out) {
  float row[8];
  const int i = threadIdx.x;
  for (int j = 0; j < (bug ? 9 : 8); ++j) row[j] = in[(i + j) % kThreads];
  out[i] = row[i % 8 == 0 ? 0 : i % 8] - row[i % 8] + in[i];
}

struct Data {
  std::vector<float> in, out, expected;
  unsigned flag = 0;
};

Data fresh() {
  Data data;
  for (int i = 0; i < kThreads; ++i) data.in.push_back(static_cast<float>(i + 1));
  data.out.assign(kThreads, -1.0f);
  data.expected = data.in;
  return data;
}

using Kernel = void (*)(const float*, float*);

struct Case {
  const char* name;
  std::function<void(bool bug, Data& data)> run;
};

Case plain(const char* name, Kernel right, Kernel wrong) {
  return {name, [=](bool bug, Data& data) {
            const std::size_t shared = SharedSize().add<float>(kThreads).add<int>(kThreads).bytes();
            launch(bug ? wrong : right, dim3(1), dim3(kThreads), shared, nullptr, data.in.data(),
                   data.out.data());
          }};
}

#define CASE(name) plain(#name, name##_kernel<false>, name##_kernel<true>)

std::vector<Case> cases() {
  std::vector<Case> all = {CASE(shared_overrun),
                           CASE(static_overrun),
                           CASE(store_past_output),
                           CASE(early_return),
                           CASE(uninitialised),
                           CASE(missing_wait),
                           CASE(divergent),
                           CASE(absent_lane),
                           CASE(stack_overrun),
                           CASE(missing_second_barrier),
                           CASE(missing_second_syncwarp),
                           CASE(early_refill)};
  all.push_back({"missing_barrier", [](bool bug, Data& data) {
                   for (int i = 0; i < kThreads; ++i) data.expected[i] = data.in[kThreads - 1 - i];
                   launch(bug ? missing_barrier_kernel<true> : missing_barrier_kernel<false>, dim3(1),
                          dim3(kThreads), SharedSize().add<float>(kThreads).bytes(), nullptr, data.in.data(),
                          data.out.data());
                 }});
  all.push_back({"missing_syncwarp", [](bool bug, Data& data) {
                   for (int i = 0; i < kThreads; ++i) data.expected[i] = data.in[i ^ 31];
                   launch(bug ? missing_syncwarp_kernel<true> : missing_syncwarp_kernel<false>, dim3(1),
                          dim3(kThreads), SharedSize().add<float>(kThreads).bytes(), nullptr, data.in.data(),
                          data.out.data());
                 }});
  all.push_back({"race", [](bool bug, Data& data) {
                   simt::Settings settings = simt::settings();
                   settings.blocks_alive = 0;
                   const simt::ScopedSettings together(settings);
                   launch(bug ? race_kernel<true> : race_kernel<false>, dim3(2), dim3(32), 0, nullptr,
                          data.in.data(), data.out.data());
                 }});
  all.push_back({"spin_without_cooperation", [](bool bug, Data& data) {
                   for (int i = 0; i < 32; ++i) data.expected[i + 32] = data.in[i];
                   cuda::LaunchConfig config{dim3(2), dim3(32)};
                   config.cooperative = !bug;
                   launch(spin_kernel, config, data.in.data(), data.out.data(), &data.flag);
                 }});
  return all;
}

bool right(const Data& data) {
  int wrong = 0;
  for (std::size_t i = 0; i < data.out.size(); ++i) {
    if (data.out[i] == data.expected[i]) continue;
    if (wrong++ == 0) std::printf("element %zu is %g, expected %g\n", i, data.out[i], data.expected[i]);
  }
  return wrong == 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string bug = argc > 1 ? argv[1] : "none", order = argc > 2 ? argv[2] : "forward";
  simt::Settings settings;
  const char* const names[] = {"forward", "reverse", "random1", "random2"};
  for (int i = 0; i < 4; ++i) {
    if (order == names[i]) settings.schedule = simt::kSchedules[i];
  }
  simt::set_settings(settings);
  bool found = bug == "none", all_right = true;
  try {
    for (const Case& one : cases()) {
      if (bug != "none" && bug != one.name) continue;
      found = true;
      Data data = fresh();
      one.run(bug != "none", data);
      all_right = right(data) && all_right;
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 3;
  }
  if (!found) std::fprintf(stderr, "no bug called %s\n", bug.c_str());
  return !found ? 4 : all_right ? 0 : 1;
}
