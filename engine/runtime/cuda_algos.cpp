#include "runtime/cuda_algos.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "frcnn/error.h"
#include "graph/dtype.h"
#include "graph/shapes.h"
#include "vendor/packing.h"

namespace frcnn {
namespace {

std::size_t round_up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

// One layer on memory of its own; what it is timed with are small values of no meaning.
class Trial {
 public:
  Trial(Device& device, const KernelSpec& spec, const Prepared& kernel) : device_(device), kernel_(kernel) {
    for (std::size_t i = 0; i < spec.in.size(); ++i) {
      std::size_t bytes = spec.in[i].bytes();
      DType dtype = spec.in[i].dtype;
      for (const WeightPacking& packing : kernel.packings) {
        if (packing.input != static_cast<int>(i)) continue;
        bytes = packing.bytes;
        dtype = spec.in[0].dtype;  // weights are packed as what they are multiplied with
      }
      in_.push_back({take(bytes), spec.in[i].shape, spec.in[i].dtype});
      contents_.push_back({bytes, dtype});
    }
    for (const TensorSpec& out : spec.out) out_.push_back({take(out.bytes()), out.shape, out.dtype});
    if (kernel.workspace_bytes > 0) workspace_ = take(kernel.workspace_bytes);
  }

  void run() const { kernel_.run({in_, out_, workspace_, device_.stream()}); }

  // Milliseconds of one run among others, as part of a CUDA graph.
  double ms(const CudaAlgos::Timer& timer) const {
    constexpr int runs = 4, replays = 5;
    for (std::size_t i = 0; i < in_.size(); ++i) fill(in_[i].data, contents_[i].bytes, contents_[i].dtype);
    run();  // loads the kernels
    device_.synchronize();
    const auto recording = device_.record([&] {
      for (int i = 0; i < runs; ++i) run();
    });
    std::array<double, replays> times{};
    for (double& time : times) time = timer(*recording) / runs;
    std::nth_element(times.begin(), times.begin() + replays / 2, times.end());
    return times[replays / 2];
  }

 private:
  void* take(std::size_t bytes) {
    memory_.push_back(device_.allocate(bytes));
    return memory_.back().get();
  }
  // Not with zeros, which cost a GPU less power and so less time.
  void fill(void* memory, std::size_t bytes, DType dtype) const {
    constexpr std::size_t most = 1 << 18;
    const std::size_t count = std::min(bytes / size_of(dtype), most);
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i * 40503 % 2003) / 2003.0f - 0.5f;
    std::vector<std::byte> pattern(count * size_of(dtype));
    from_f32(values.data(), count, dtype, pattern.data());
    for (std::size_t at = 0; at < bytes && !pattern.empty(); at += pattern.size())
      device_.upload(static_cast<std::byte*>(memory) + at, pattern.data(), std::min(pattern.size(), bytes - at));
  }

  Device& device_;
  const Prepared& kernel_;
  std::vector<std::shared_ptr<void>> memory_;
  std::vector<TensorView> in_, out_;
  struct Contents {
    std::size_t bytes;
    DType dtype;
  };
  std::vector<Contents> contents_;  // of in_
  void* workspace_ = nullptr;
};

std::string to_string(std::span<const TensorSpec> specs) {
  std::string text;
  for (const TensorSpec& spec : specs)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", frcnn::to_string(spec.shape), name_of(spec.dtype));
  return text;
}

std::string describe(const Op& op, const KernelSpec& spec, Precision precision) {
  std::string attributes;
  const Epilogue* epilogue = nullptr;
  if (const auto* conv = std::get_if<Conv2d>(&op)) {
    attributes = fmt::format(" stride {} pad {}", conv->stride, conv->pad);
    epilogue = &conv->epilogue;
  } else {
    epilogue = &std::get<Linear>(op).epilogue;
  }
  return fmt::format("{}{}{}{}, {}: {} -> {}", name_of(op), attributes, epilogue->relu ? " relu" : "",
                     epilogue->max_pool_2x2 ? " pool" : "", name_of(precision), to_string(spec.in),
                     to_string(spec.out));
}

// What a pooled convolution would store without its pooling.
TensorSpec map_before_pooling(const Conv2d& op, const KernelSpec& spec) {
  const Shape &src = spec.in[0].shape, &weight = spec.in[1].shape;
  const auto size = [&](std::int64_t source, std::int64_t kernel) {
    return convolved_size(source, kernel, op.stride, op.pad);
  };
  return {{src[0], size(src[1], weight[2]), size(src[2], weight[3]), weight[0]}, spec.out[0].dtype};
}

// The workspace of a library's kernel for the layer, whether or not there is one.
std::size_t library_workspace(const Op& op, const KernelSpec& spec) {
  const auto* conv = std::get_if<Conv2d>(&op);
  const bool pooled = conv && conv->epilogue.max_pool_2x2;
  return vendor::workspace_bytes + (pooled ? round_up(map_before_pooling(*conv, spec).bytes()) : 0);
}

bool is_faster(const KernelTimes& times) { return times.library_ms && *times.library_ms < times.ours_ms; }

// Opens what open() finds, or nothing where there is none, or none that starts, and `optional`.
template <class Open>
auto opened(bool optional, const Open& open) -> decltype(open()) {
  try {
    return open();
  } catch (const Error& error) {
    if (!optional || error.code() == ErrorCode::out_of_memory) throw;
    return nullptr;
  }
}

}  // namespace

CudaAlgos::CudaAlgos(Device& device, const cuda::Settings& settings, const GpuOptions& options, const std::string& gpu,
                     Timer timer)
    : device_(device), settings_(settings), options_(options), timer_(std::move(timer)) {
  const bool optional = options_.algo == Algo::automatic;
  cudnn_ = opened(optional,
                  [&] { return std::make_shared<vendor::Cudnn>(vendor::open_cudnn(), device_.stream()); });
  cublaslt_ = opened(optional, [] { return std::make_shared<vendor::CublasLt>(vendor::open_cublaslt()); });
  if (!optional) return;
  machine_ = fmt::format("{}, frcnn {}", gpu, FRCNN_VERSION);
  for (const std::string& library : libraries()) machine_ += ", " + library;
  if (options_.algo_cache.empty()) options_.algo_cache = default_algo_cache();
  if (options_.tune && options_.algo_cache.empty())
    throw Error(ErrorCode::invalid_argument,
                "there is no file to keep measured times in: name one, or set XDG_CACHE_HOME or HOME");
  MachineTimes all = read_algo_cache(options_.algo_cache);
  if (const auto found = all.find(machine_); found != all.end()) times_ = std::move(found->second);
}

std::vector<std::string> CudaAlgos::libraries() const {
  std::vector<std::string> names;
  if (cudnn_) names.push_back("cuDNN " + cudnn_->version());
  if (cublaslt_) names.push_back("cuBLASLt " + cublaslt_->version());
  return names;
}

// A library has no pooling in its epilogue: its map goes through the workspace into our pooling.
std::optional<Prepared> CudaAlgos::then_pooled(Conv2d op, const KernelSpec& spec) {
  const TensorSpec map = map_before_pooling(op, spec);
  op.epilogue.max_pool_2x2 = false;
  const std::array<TensorSpec, 1> maps{map};
  auto made = theirs(op, {spec.in, maps});
  if (!made) return made;
  Prepared pool = cuda::prepare(MaxPool{2, 2, 0, Rounding::ceil}, {maps, spec.out}, settings_);
  const std::size_t behind = round_up(map.bytes());
  made->workspace_bytes += behind;
  made->implementation += "+" + pool.implementation;
  made->run = [map, behind, convolve = std::move(made->run), pool = std::move(pool.run)](const KernelArgs& args) {
    const std::array<TensorView, 1> between{{{args.workspace, map.shape, map.dtype}}};
    convolve({args.in, between, static_cast<std::byte*>(args.workspace) + behind, args.stream});
    pool({between, args.out, nullptr, args.stream});
  };
  return made;
}

std::optional<Prepared> CudaAlgos::theirs(const Conv2d& op, const KernelSpec& spec) {
  if (op.epilogue.max_pool_2x2) return then_pooled(op, spec);
  std::optional<Prepared> made;
  if (cudnn_) made = cudnn_->prepare(op, spec, settings_.precision);
  if (!made && cublaslt_) made = cublaslt_->prepare(op, spec, settings_.precision);
  return made;
}

std::optional<Prepared> CudaAlgos::theirs(const Op& op, const KernelSpec& spec) {
  if (const auto* conv = std::get_if<Conv2d>(&op)) return theirs(*conv, spec);
  const auto* linear = std::get_if<Linear>(&op);
  if (!linear || !cublaslt_) return std::nullopt;
  return cublaslt_->prepare(*linear, spec, settings_.precision);
}

// Nothing where there is no memory for a trial beside all else: the layer is measured another time. A library
// that refuses the layer only now has no time.
std::optional<KernelTimes> CudaAlgos::measure(const KernelSpec& spec, const Prepared& ours,
                                              const Prepared& library) {
  try {
    KernelTimes times{ours.implementation, library.implementation, Trial(device_, spec, ours).ms(timer_),
                      std::nullopt};
    try {
      times.library_ms = Trial(device_, spec, library).ms(timer_);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::unsupported) throw;
    }
    return times;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::out_of_memory) throw;
    return std::nullopt;
  }
}

// Whether the library's kernel runs, tried once for each layer; where there is no memory to try it, not this
// time.
bool CudaAlgos::runs(const std::string& layer, const KernelSpec& spec, const Prepared& library) {
  const std::string key = layer + "\n" + library.implementation;
  if (const auto known = runs_.find(key); known != runs_.end()) return known->second;
  bool result = true;
  try {
    Trial(device_, spec, library).run();
    device_.synchronize();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::out_of_memory) return false;
    if (error.code() != ErrorCode::unsupported) throw;
    result = false;
  }
  return runs_[key] = result;
}

// Whatever is chosen, here and by choose(), the plan has room for either: an arena that was reserved for a
// large image, before anything was measured or where the library refused it, serves smaller ones afterwards.
// Where the library cannot win it is not asked, which takes its time too.
Prepared CudaAlgos::fastest(const Op& op, const KernelSpec& spec, const std::string& layer, Prepared ours) {
  const std::size_t workspace = std::max(ours.workspace_bytes, library_workspace(op, spec));
  ours.workspace_bytes = workspace;
  const auto known = times_.find(layer);
  if (!options_.tune && (known == times_.end() || !is_faster(known->second))) return ours;
  std::optional<Prepared> library = theirs(op, spec);
  if (!library) return ours;
  const bool same = known != times_.end() && known->second.ours == ours.implementation &&
                    known->second.library == library->implementation;
  if (!same && !options_.tune) return ours;
  if (!same) {
    const std::optional<KernelTimes> measured = measure(spec, ours, *library);
    if (!measured) return ours;
    add_to_algo_cache(options_.algo_cache, machine_, layer, *measured);
    times_[layer] = *measured;
  }
  if (!is_faster(times_.at(layer))) return ours;
  library->workspace_bytes = workspace;
  return std::move(*library);
}

Prepared CudaAlgos::choose(const Op& op, const KernelSpec& spec, Prepared ours) {
  const bool concerned = std::holds_alternative<Conv2d>(op) || std::holds_alternative<Linear>(op);
  if (!concerned || (!cudnn_ && !cublaslt_)) return ours;
  const std::string layer = describe(op, spec, settings_.precision);
  if (options_.algo == Algo::automatic) return fastest(op, spec, layer, std::move(ours));
  std::optional<Prepared> library = theirs(op, spec);
  Prepared chosen = library && runs(layer, spec, *library) ? std::move(*library) : std::move(ours);
  chosen.workspace_bytes = std::max(chosen.workspace_bytes, library_workspace(op, spec));
  return chosen;
}

namespace {

template <class Open>
LibraryFinding finding(const char* library, const Open& open) {
  try {
    const auto found = open();
    return {library, fmt::format("{}, {}", found.version, found.file), true};
  } catch (const Error& error) {
    return {library, error.what(), false};
  }
}

}  // namespace

std::vector<LibraryFinding> find_gpu_libraries() {
  return {finding("cuDNN", vendor::open_cudnn), finding("cuBLASLt", vendor::open_cublaslt)};
}

}  // namespace frcnn
