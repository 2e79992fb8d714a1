// The engine's own behaviour: barriers, orders, blocks alive together, shared memory, refusals, names.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "launch.h"
#include "ptx.h"
#include "tests/simt/buffer.h"

using namespace frcnn;
using cuda::launch;
using cuda::LaunchConfig;
using cuda::SharedCarver;
using cuda::SharedSize;
using simt_test::in_every_order;

namespace {

std::string failure_of(const std::function<void()>& what) {
  try {
    what();
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::device);
    return e.what();
  }
  return "";
}

bool says(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return true;
  UNSCOPED_INFO("\"" << text << "\" does not say \"" << part << "\"");
  return false;
}

// Who came when.
__global__ void log_kernel(int* count, int* log) {
  log[atomicAdd(count, 1)] = static_cast<int>(blockIdx.x * 100 + threadIdx.x);
}

std::vector<int> log_of(int blocks, int threads) {
  std::vector<int> log(static_cast<std::size_t>(blocks * threads), -1);
  int count = 0;
  launch(log_kernel, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)), 0, nullptr,
         &count, log.data());
  return log;
}

__global__ void nothing_kernel() {}

__global__ void carve_kernel(int count, std::size_t alignment, std::uintptr_t* address) {
  SharedCarver carver;
  carver.take<char>(3);
  const auto* const piece = carver.take<double>(static_cast<std::size_t>(count), alignment);
  *address = reinterpret_cast<std::uintptr_t>(piece);
}

__global__ void two_barriers_kernel() {
  if (threadIdx.x < 7) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void wrong_lane_kernel() { __shfl_sync(0x1u, 1.0f, 0); }

__global__ void returned_lane_kernel() {
  if (threadIdx.x == 3) return;
  __syncwarp(0xfffffff7u);
  __ballot_sync(0xffffffffu, 1);
}

__global__ void partial_warp_kernel(float* out) {
  out[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1.0f + threadIdx.x, 1);
}

__global__ void partial_mma_kernel() {
  float d[4] = {};
  const std::uint32_t a[4] = {}, b[2] = {};
  cuda::mma_m16n8k8_tf32(d, a, b);
}

__global__ void misaligned_copy_kernel(const float* from) {
  SharedCarver carver;
  cuda::cp_async<16>(carver.take<float>(8), from + 1);
}

__global__ void static_shared_kernel() {
  __shared__ int cell;
  if (threadIdx.x == 0) cell = 1;
  __syncthreads();
  if (cell != 1) __trap();
}

__global__ void throwing_kernel() { throw std::string().at(1); }

// Two groups in flight: after waiting for all but one, the first is there and the second is still NaN.
__global__ void two_groups_kernel(const float* from, float* out) {
  SharedCarver carver;
  float* const tile = carver.take<float>(2);
  cuda::cp_async<4>(tile, from);
  cuda::cp_async_commit_group();
  cuda::cp_async<4>(tile + 1, from + 1);
  cuda::cp_async_commit_group();
  out[0] = tile[0];
  cuda::cp_async_wait_group<1>();
  out[1] = tile[0];
  out[2] = tile[1];
  cuda::cp_async_wait_group<0>();
  out[3] = tile[1];
  cuda::cp_async<4>(tile, from + 2);
  cuda::cp_async_wait_all();
  out[4] = tile[0];
}

// What a phase leaves is gone in the next block, and a second carver begins at the start.
__global__ void leftovers_kernel(float* out) {
  SharedCarver first;
  float* const a = first.take<float>(4);
  SharedCarver second;
  out[2 * blockIdx.x] = a[0];
  out[2 * blockIdx.x + 1] = static_cast<float>(second.take<float>(4) - a);
  a[0] = 5.0f;
}

// Every block adds itself to a counter and waits until all have.
__global__ void grid_barrier_kernel(unsigned* counter, unsigned* seen) {
  if (threadIdx.x == 0) {
    cuda::atom_add_acq_rel(counter, 1);
    cuda::spin_wait([&] { return cuda::ld_acquire(counter) == gridDim.x; });
  }
  __syncthreads();
  if (threadIdx.x == 0) seen[blockIdx.x] = cuda::ld_acquire(counter);
}

// A lane that runs ahead to the second __syncwarp must not be seen by those still at the first.
__global__ void ring_kernel(int* out) {
  SharedCarver carver;
  int* const cell = carver.take<int>(32);
  const int lane = threadIdx.x;
  cell[lane] = lane;
  for (int turn = 0; turn < 5; ++turn) {
    __syncwarp();
    const int next = cell[(lane + 1) % 32];
    __syncwarp();
    cell[lane] = next;
  }
  out[lane] = cell[lane];
}

template <int>
__global__ void named_kernel(const float*, int) {}

}  // namespace

TEST_CASE("threads and blocks run forward, backward and shuffled") {
  std::vector<std::vector<int>> logs;
  in_every_order([&] { logs.push_back(log_of(3, 5)); });
  std::vector<int> forward;
  for (int block = 0; block < 3; ++block) {
    for (int thread = 0; thread < 5; ++thread) forward.push_back(block * 100 + thread);
  }
  REQUIRE(logs.size() == 4);
  CHECK(logs[0] == forward);
  CHECK(logs[1] == std::vector<int>(forward.rbegin(), forward.rend()));
  CHECK(logs[2] != logs[3]);
  for (auto& log : logs) {
    std::sort(log.begin(), log.end());
    CHECK(log == forward);
  }
}

TEST_CASE("a launch that no GPU would take is refused by name") {
  const auto refuse = [](dim3 grid, dim3 block, std::size_t shared) {
    return failure_of([=] { launch(nothing_kernel, grid, block, shared, nullptr); });
  };
  CHECK(says(refuse(dim3(0), dim3(32), 0), "nothing_kernel: grid (0, 1, 1)"));
  CHECK(says(refuse(dim3(1, 65536), dim3(32), 0), "65535"));
  CHECK(says(refuse(dim3(1), dim3(1025), 0), "1 to 1024 threads"));
  CHECK(says(refuse(dim3(1), dim3(32, 33), 0), "1 to 1024 threads"));
  CHECK(says(refuse(dim3(1), dim3(1, 1, 65), 0), "1 to 1024 threads"));
  CHECK(says(refuse(dim3(1), dim3(32), 227 * 1024 + 1), "232449 bytes of shared memory"));
  CHECK(refuse(dim3(2, 3, 4), dim3(4, 4, 64), 227 * 1024) == "");
}

TEST_CASE("shared memory is aligned as asked and no larger than launched") {
  std::uintptr_t address = 0;
  const std::size_t bytes = SharedSize().add<char>(3).add<double>(5, 64).bytes();
  CHECK(bytes == 64 + 40);
  launch(carve_kernel, dim3(1), dim3(1), bytes, nullptr, 5, std::size_t{64}, &address);
  CHECK(address % 64 == 0);
  CHECK(says(failure_of([&] {
               launch(carve_kernel, dim3(1), dim3(1), bytes - 1, nullptr, 5, std::size_t{64}, &address);
             }),
             "carves 104 bytes of shared memory, launched with 103"));
  CHECK(says(failure_of([&] {
               launch(carve_kernel, dim3(1), dim3(1), bytes, nullptr, 5, std::size_t{48}, &address);
             }),
             "alignment of 48"));
}

TEST_CASE("shared memory is NaN at the start of every block, and a second carver begins again") {
  std::vector<float> out(4, 1.0f);
  launch(leftovers_kernel, dim3(2), dim3(1), SharedSize().add<float>(4).bytes(), nullptr, out.data());
  CHECK(std::isnan(out[0]));
  CHECK(std::isnan(out[2]));
  CHECK(out[1] == 0.0f);
}

TEST_CASE("asynchronous copies arrive at the wait for their group") {
  const std::vector<float> from = {1.0f, 2.0f, 3.0f};
  std::vector<float> out(5);
  launch(two_groups_kernel, dim3(1), dim3(1), SharedSize().add<float>(2).bytes(), nullptr, from.data(),
         out.data());
  CHECK(std::isnan(out[0]));
  CHECK(out[1] == 1.0f);
  CHECK(std::isnan(out[2]));
  CHECK(out[3] == 2.0f);
  CHECK(out[4] == 3.0f);
}

TEST_CASE("misuse inside a kernel is an error that names kernel, thread and line") {
  const auto failure = [](void (*kernel)(), int threads) {
    return failure_of([=] { launch(kernel, dim3(1), dim3(static_cast<unsigned>(threads)), 64, nullptr); });
  };
  in_every_order([&] {
    const std::string text = failure(two_barriers_kernel, 40);
    CHECK(says(text, "two_barriers_kernel, block (0, 0, 0), thread ("));
    CHECK(says(text, "__syncthreads at test_engine.cpp:"));
    CHECK(says(text, "while "));
    CHECK(says(failure(wrong_lane_kernel, 32), "is not in its own mask 0x00000001"));
    CHECK(says(failure(returned_lane_kernel, 32), "lanes 3 of the mask 0xffffffff have returned"));
    CHECK(says(failure(partial_mma_kernel, 16), "needs all 32 lanes"));
  });
  CHECK(says(failure(throwing_kernel, 1), "the kernel threw"));
  const std::vector<float> from(8);
  CHECK(says(failure_of([&] { launch(misaligned_copy_kernel, dim3(1), dim3(1), 64, nullptr, from.data()); }),
             "cp.async of 16 bytes: source is not aligned"));
}

TEST_CASE("after an error the next launch is as if there had been none") {
  for (int i = 0; i < 3; ++i) {
    CHECK(failure_of([] { launch(two_barriers_kernel, dim3(3), dim3(64), 0, nullptr); }) != "");
    const std::vector<int> log = log_of(2, 64);
    CHECK(std::set<int>(log.begin(), log.end()).size() == 128);
    CHECK(log.back() == 163);
  }
}

TEST_CASE("a lane that the block does not have reads as NaN") {
  std::vector<float> out(20);
  launch(partial_warp_kernel, dim3(1), dim3(20), 0, nullptr, out.data());
  for (std::size_t i = 0; i < 19; ++i) CHECK(out[i] == static_cast<float>(i + 2));
  CHECK(std::isnan(out[19]));
}

TEST_CASE("__syncwarp holds the lanes together turn by turn, in every order") {
  in_every_order([] {
    std::vector<int> out(32);
    launch(ring_kernel, dim3(1), dim3(32), SharedSize().add<int>(32).bytes(), nullptr, out.data());
    for (int lane = 0; lane < 32; ++lane) CHECK(out[static_cast<std::size_t>(lane)] == (lane + 5) % 32);
  });
}

TEST_CASE("the blocks of a cooperative launch wait for each other, in every order") {
  in_every_order([] {
    unsigned counter = 0;
    std::vector<unsigned> seen(9);
    LaunchConfig config{dim3(9), dim3(40)};
    config.cooperative = true;
    launch(grid_barrier_kernel, config, &counter, seen.data());
    CHECK(seen == std::vector<unsigned>(9, 9u));
  });
  LaunchConfig config{dim3(9), dim3(40)};
  unsigned counter = 0;
  std::vector<unsigned> seen(9);
  CHECK(says(failure_of([&] { launch(grid_barrier_kernel, config, &counter, seen.data()); }),
             "what waits for another block needs a cooperative launch"));
}

TEST_CASE("one copy of a __shared__ variable is not shared by blocks that live together") {
  launch(static_shared_kernel, dim3(2), dim3(32), 0, nullptr);
  LaunchConfig config{dim3(2), dim3(32)};
  config.cooperative = true;
  CHECK(says(failure_of([&] { launch(static_shared_kernel, config); }), "carve dynamic shared memory"));
}

TEST_CASE("a cooperative grid too large for the emulator is refused") {
  LaunchConfig config{dim3(1000), dim3(1024)};
  config.cooperative = true;
  CHECK(says(failure_of([&] { launch(nothing_kernel, config); }), "1000 blocks of 1024 threads at once"));
}

TEST_CASE("launched kernels are known by their names") {
  launch(named_kernel<42>, dim3(1), dim3(1), 0, nullptr, nullptr, 3);
  int count = 0;
  for (const auto& [name, launches] : simt::launched_kernels()) {
    if (name.find("named_kernel<42>") == std::string::npos) continue;
    ++count;
    CHECK(launches >= 1);
    CHECK(name.back() == '>');
  }
  CHECK(count == 1);
}

TEST_CASE("several host threads may launch") {
  std::vector<std::vector<int>> logs(4);
  std::vector<std::thread> hosts;
  for (auto& log : logs) {
    hosts.emplace_back([&log] {
      for (int i = 0; i < 5; ++i) log = log_of(2, 33);
    });
  }
  for (auto& host : hosts) host.join();
  for (const auto& log : logs) CHECK(log == logs[0]);
  CHECK(logs[0].back() == 132);
}
