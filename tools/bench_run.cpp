#include "bench_run.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cmath>
#include <exception>
#include <mutex>
#include <numeric>
#include <system_error>
#include <thread>

#include "device_options.h"
#include "frcnn/error.h"
#include "graph/shapes.h"

namespace frcnn {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::size_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

// One session and the batches of images that it sees.
class Lane {
 public:
  Lane(const BenchRequest& request, std::size_t first, std::shared_ptr<const Model> model)
      : request_(request),
        next_(first),
        detector_(std::move(model), open_device(request.detector, first > 0), request.detector) {}

  // The time of one batch and what was found in its first image.
  double batch(DetectResult* result = nullptr, bool by_node = false) {
    const Image& picture = request_.picture;
    std::vector<ImageView> views(static_cast<std::size_t>(request_.detector.max_batch));
    for (ImageView& view : views) {
      const auto [height, width] = request_.sizes[next_++ % request_.sizes.size()];
      view = {picture.bgr.data(), width, height, std::ptrdiff_t{3} * picture.width};
    }
    DetectRequest wanted;
    wanted.want_times = by_node;
    const Clock::time_point start = Clock::now();
    std::vector<DetectResult> found = detector_.detect(views, wanted);
    const double ms = ms_since(start);
    arena_bytes_ = std::max(arena_bytes_, detector_.session().latest()->plan().arena_bytes);
    if (result) *result = std::move(found.front());
    return ms;
  }

  std::vector<double> batches(int count) {
    std::vector<double> ms;
    ms.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) ms.push_back(batch());
    return ms;
  }

  std::vector<double> batches_while(const std::function<bool(const std::vector<double>&)>& more) {
    std::vector<double> ms;
    while (more(ms)) ms.push_back(batch());
    return ms;
  }

  Detector& detector() { return detector_; }
  std::size_t arena_bytes() const { return arena_bytes_; }

 private:
  const BenchRequest& request_;
  std::size_t next_;  // the next image's number
  Detector detector_;
  std::size_t arena_bytes_ = 0;
};

// All lanes begin together, each in its own thread; the first failure ends the measurement.
void run_together(const BenchRequest& request, std::vector<std::unique_ptr<Lane>>& lanes,
                  BenchResult& result) {
  std::mutex mutex;
  std::exception_ptr failure;
  std::atomic<bool> incomplete = false;
  std::barrier start(static_cast<std::ptrdiff_t>(lanes.size()));
  Clock::time_point first = Clock::time_point::max(), last = Clock::time_point::min();
  const auto work = [&](Lane& lane) {
    std::vector<double> ms;
    Clock::time_point begin, end;
    std::exception_ptr own;
    try {
      lane.batches(request.warmup);
    } catch (...) {
      own = std::current_exception();
    }
    start.arrive_and_wait();
    begin = Clock::now();
    try {
      if (!own && !incomplete)
        ms = request.more ? lane.batches_while(request.more) : lane.batches(request.iterations);
    } catch (...) {
      own = std::current_exception();
    }
    end = Clock::now();
    const std::lock_guard lock(mutex);
    result.samples_ms.insert(result.samples_ms.end(), ms.begin(), ms.end());
    first = std::min(first, begin);
    last = std::max(last, end);
    if (own && !failure) failure = own;
  };
  if (lanes.size() == 1) {
    work(*lanes.front());  // here, with the thread pool that the first batch made
  } else {
    std::vector<std::thread> threads;
    threads.reserve(lanes.size());
    try {
      for (const auto& lane : lanes) threads.emplace_back(work, std::ref(*lane));
    } catch (const std::system_error& error) {
      incomplete = true;
      const std::lock_guard lock(mutex);
      failure = std::make_exception_ptr(
          Error(ErrorCode::out_of_memory, fmt::format("thread {} of {} cannot be started: {}",
                                                      threads.size() + 1, lanes.size(), error.what())));
      // Those that run wait for all to begin.
      for (std::size_t i = threads.size(); i < lanes.size(); ++i) start.arrive_and_drop();
    }
    for (std::thread& thread : threads) thread.join();
  }
  if (failure) std::rethrow_exception(failure);
  result.wall_ms = std::chrono::duration<double, std::milli>(last - first).count();
  if (request.more) result.wall_ms = std::accumulate(result.samples_ms.begin(), result.samples_ms.end(), 0.0);
}

// Runs of their own, since waiting for the device after every node takes time as well.
std::vector<BenchLayer> time_layers(const BenchRequest& request, Lane& lane) {
  std::vector<std::vector<double>> ms;
  for (int i = 0; i < request.iterations; ++i) {
    DetectResult found;
    lane.batch(&found, true);
    ms.resize(found.times.size());
    for (std::size_t n = 0; n < ms.size(); ++n) ms[n].push_back(found.times[n].ms);
  }
  const Executable& program = *lane.detector().session().latest();
  const Graph& graph = program.graph();
  const auto specs = [&](const std::vector<ValueId>& ids) {
    std::vector<TensorSpec> result;
    for (const ValueId id : ids) result.push_back(graph.value(id).spec);
    return result;
  };
  std::vector<BenchLayer> layers;
  for (std::size_t n = 0; n < ms.size(); ++n) {
    const Node& node = graph.nodes()[n];
    layers.push_back({node.layer, std::string(name_of(node.op)),
                      std::string(stage_names[static_cast<std::size_t>(node.stage)]),
                      program.implementation(n), quantile(std::move(ms[n]), 0.5),
                      flops(node.op, specs(node.in), specs(node.out))});
  }
  return layers;
}

}  // namespace

double quantile(std::vector<double> samples, double q) {
  std::sort(samples.begin(), samples.end());
  const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(samples.size())));
  return samples[std::clamp<std::size_t>(rank, 1, samples.size()) - 1];
}

BenchResult run_bench(const BenchRequest& request) {
  BenchResult result;
  const Clock::time_point start = Clock::now();
  const std::shared_ptr<const Model> model = request.load();
  std::vector<std::unique_ptr<Lane>> lanes;
  lanes.push_back(std::make_unique<Lane>(request, 0, model));
  result.load_ms = ms_since(start);
  DetectResult first;
  result.first_image_ms = lanes[0]->batch(&first);
  result.proposals = first.proposal_count;
  result.detections = static_cast<std::int64_t>(first.detections.size());
  // Sessions begin at different sizes, as requests would.
  for (int i = 1; i < request.sessions; ++i)
    lanes.push_back(std::make_unique<Lane>(request, static_cast<std::size_t>(i) * 7, model));
  run_together(request, lanes, result);
  for (const auto& lane : lanes) result.sessions.push_back(lane->detector().session().stats());
  if (request.per_layer) result.layers = time_layers(request, *lanes[0]);

  result.device = lanes[0]->detector().device().name();
  result.precision = lanes[0]->detector().device().precision();
  for (const auto& lane : lanes) result.arena_bytes = std::max(result.arena_bytes, lane->arena_bytes());
  result.reserved_bytes = lanes[0]->detector().session().arena_bytes();
  result.packed_bytes = model->weights.packed_bytes();
  result.peak_bytes = peak_resident_bytes();
  return result;
}

}  // namespace frcnn
