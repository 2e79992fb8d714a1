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
        detector_(std::move(model), open_device(request.detector, first > 0), request.detector),
        pixels_(request.picture.bgr.data()) {
    if (!request.on_device) return;
    if (detector_.device().is_host())
      throw Error(ErrorCode::invalid_argument,
                  "pixels on the device: " + detector_.device().name() + " computes in the host's memory");
    on_device_ = detector_.device().allocate(request.picture.bgr.size());
    detector_.device().upload(on_device_.get(), pixels_, request.picture.bgr.size());
    pixels_ = static_cast<const std::uint8_t*>(on_device_.get());
  }

  // The time of one batch and what was found in its first image.
  double batch(DetectResult* result = nullptr, bool by_node = false) {
    std::vector<ImageView> views(static_cast<std::size_t>(request_.detector.max_batch));
    for (ImageView& view : views) {
      const auto [height, width] = request_.sizes[next_++ % request_.sizes.size()];
      view = {pixels_, width, height, std::ptrdiff_t{3} * request_.picture.width};
      if (on_device_) view.memory = PixelMemory::device;
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

  // At least one, at most `count`, none of them begun after `seconds`.
  std::vector<double> batches(int count, double seconds) {
    const Clock::time_point start = Clock::now();
    std::vector<double> ms;
    ms.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
      if (i > 0 && seconds > 0 && ms_since(start) > seconds * 1000) break;
      ms.push_back(batch());
    }
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
  const std::uint8_t* pixels_;
  std::shared_ptr<void> on_device_;  // them, where they lie there
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
      lane.batches(request.warmup, 0);
    } catch (...) {
      own = std::current_exception();
    }
    start.arrive_and_wait();
    begin = Clock::now();
    try {
      if (!own && !incomplete)
        ms = request.more ? lane.batches_while(request.more)
                          : lane.batches(request.iterations, request.seconds);
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

// Everything that a node reads and writes, each once, if it could keep the rest to itself.
double bytes_of(const Graph& graph, const Node& node, Precision precision) {
  const bool half = precision == Precision::fp16 || precision == Precision::bf16;
  double bytes = 0;
  for (const auto* ids : {&node.in, &node.out}) {
    for (const ValueId id : *ids) {
      const Value& value = graph.value(id);
      const bool narrowed = half && value.role == Role::weight && value.spec.shape.rank > 1;
      bytes += static_cast<double>(value.spec.shape.elements()) *
               static_cast<double>(narrowed ? 2 : size_of(value.spec.dtype));
    }
  }
  return bytes;
}

// Runs of their own. On the host a node is done when its call returns; a GPU is kept busy with one node at a
// time, since launching it and waiting for it alone takes longer than many a node itself.
std::vector<BenchLayer> time_layers(const BenchRequest& request, Lane& lane, int repeats) {
  std::vector<std::vector<double>> ms;
  std::vector<NodeTime> times;
  const int runs = repeats > 0 ? std::min(request.iterations, 5) : request.iterations;
  for (int i = 0; i < runs; ++i) {
    if (repeats > 0) {
      if (i == 0) lane.batch();  // the size whose inputs the others read again
      lane.detector().session().latest()->run_repeated(repeats, times);
    } else {
      DetectResult found;
      lane.batch(&found, true);
      times = std::move(found.times);
    }
    ms.resize(times.size());
    for (std::size_t n = 0; n < ms.size(); ++n) ms[n].push_back(times[n].ms);
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
                      flops(node.op, specs(node.in), specs(node.out)),
                      bytes_of(graph, node, lane.detector().device().precision())});
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
  result.batches = result.samples_ms.size();
  for (const auto& lane : lanes) result.sessions.push_back(lane->detector().stats());
  if (request.per_layer) {
    if (!lanes[0]->detector().device().is_host()) result.layer_repeats = std::min(request.iterations, 20);
    result.layers = time_layers(request, *lanes[0], result.layer_repeats);
  }

  result.device = lanes[0]->detector().device().name();
  result.precision = lanes[0]->detector().device().precision();
  result.libraries = lanes[0]->detector().device().libraries();
  for (const auto& lane : lanes) result.arena_bytes = std::max(result.arena_bytes, lane->arena_bytes());
  result.reserved_bytes = lanes[0]->detector().session().arena_bytes();
  result.packed_bytes = model->weights.packed_bytes();
  result.peak_bytes = peak_resident_bytes();
  return result;
}

}  // namespace frcnn
