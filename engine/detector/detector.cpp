#include "detector/detector.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "detector/faster_rcnn.h"
#include "detector/run_values.h"
#include "frcnn/error.h"
#include "graph/dtype.h"

namespace frcnn {

// What goes in at once: images, or one ready network input. Vectors have one entry for each image and keep
// their memory.
struct Detector::Batch {
  GraphRequest::Source source = GraphRequest::Source::image;
  std::int64_t height = 0, width = 0;  // of the network's input
  std::vector<double> scale;
  std::vector<std::array<float, 3>> im_info;
  std::vector<std::array<float, 2>> image_size;
  std::vector<std::array<std::int32_t, 4>> map_sizes;
  std::span<const ImageView> images;
  std::vector<SourceImage> sources;
  std::span<const float> data_nchw;  // source blob

  std::size_t size() const { return im_info.size(); }
  void begin(GraphRequest::Source from, std::size_t n) {
    source = from;
    height = width = 0;
    scale.resize(n);
    im_info.resize(n);
    image_size.resize(n);
    map_sizes.resize(n);
    sources.resize(n);
    images = {};
    data_nchw = {};
  }
};

namespace {

// Originals that a GPU has room for at once.
constexpr std::int64_t device_image_pixels = 16LL << 20;

std::size_t checked_batch(const DetectorOptions& options) {
  if (options.max_batch < 1)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("max_batch {}: a batch has at least one image", options.max_batch));
  return static_cast<std::size_t>(options.max_batch);
}

// Three bytes for each pixel, and for each image what aligns it; only of a single pixel does NV12 have more.
std::size_t room_for_images(const DetectorOptions& options) {
  const std::size_t batch = checked_batch(options);
  const auto most =
      static_cast<std::size_t>(std::clamp<std::int64_t>(options.max_image_pixels, 0, device_image_pixels));
  return std::min(most * batch, static_cast<std::size_t>(device_image_pixels)) * 3 + batch * 256;
}

// The arena must hold every network input that the model's scale rule can produce: the two extreme shapes of
// one image, and of a batch the square that holds both of them. The plans of the others stay below (checked
// when one is made).
SessionOptions session_options(const Model& model, Device& device, const DetectorOptions& options) {
  SessionOptions session{0, options.cached_plans};
  const std::int64_t shorter = model.config.short_side, longer = model.config.long_side;
  const auto batch = static_cast<std::int64_t>(checked_batch(options));
  using Source = GraphRequest::Source;
  std::vector<GraphRequest> extremes{{Source::image, 1, shorter, longer},
                                     {Source::image, 1, longer, shorter}};
  // A ready blob is f32, which in a 16-bit program is more than what a picture becomes.
  if (storage_of(device.precision()) != DType::f32)
    extremes.insert(extremes.end(), {{Source::blob, 1, shorter, longer}, {Source::blob, 1, longer, shorter}});
  if (batch > 1) extremes.push_back({Source::image, batch, longer, longer});
  for (const GraphRequest& request : extremes) {
    const Executable extreme(build_graph(model, request), {}, model.weights, device, {ProgramMemory::none});
    session.arena_bytes = std::max(session.arena_bytes, extreme.plan().arena_bytes);
    session.packed.insert(session.packed.end(), extreme.packed().begin(), extreme.packed().end());
  }
  return session;
}

void set_data(Executable& executable, std::span<const float> nchw) {
  const Shape shape = executable.view("data").shape;
  const std::int64_t plane = shape[1] * shape[2];
  auto* const nhwc = static_cast<float*>(executable.input("data"));
  for (std::int64_t c = 0; c < 3; ++c)
    for (std::int64_t p = 0; p < plane; ++p) nhwc[p * 3 + c] = nchw[static_cast<std::size_t>(c * plane + p)];
}

// Of images that have fewer than the most, rows from their count on are zero but for the image's number.
void set_proposals(Executable& executable, const std::vector<Proposal>* proposals,
                   std::span<const std::array<float, 3>> im_info) {
  const auto rows = static_cast<std::size_t>(executable.view("roi_scores").shape[0]),
             capacity = rows / im_info.size();
  const std::span rois(static_cast<float*>(executable.input("rois")), rows * 5);
  const std::span scores(static_cast<float*>(executable.input("roi_scores")), rows);
  const std::span counts(static_cast<std::int32_t*>(executable.input("rois_count")), im_info.size());
  std::fill(rois.begin(), rois.end(), 0.0f);
  std::fill(scores.begin(), scores.end(), 0.0f);
  for (std::size_t n = 0; n < im_info.size(); ++n) {
    for (std::size_t i = 0; i < capacity; ++i) rois[(n * capacity + i) * 5] = static_cast<float>(n);
    for (std::size_t i = 0; i < proposals[n].size(); ++i) {
      const std::size_t row = n * capacity + i;
      for (std::size_t k = 0; k < 4; ++k) rois[row * 5 + 1 + k] = proposals[n][i].box[k] * im_info[n][2];
      scores[row] = proposals[n][i].score;
    }
    counts[n] = static_cast<std::int32_t>(proposals[n].size());
  }
}

std::int64_t rows_for(const std::vector<Proposal>* proposals, std::size_t images) {
  std::size_t most = 1;
  for (std::size_t n = 0; n < images; ++n) most = std::max(most, proposals[n].size());
  return static_cast<std::int64_t>(most);
}

}  // namespace

Detector::Detector(std::shared_ptr<const Model> model, const DetectorOptions& options)
    : Detector(std::move(model),
               make_device(options.device, options.precision, options.threads, nullptr, options.gpu),
               options) {}

Detector::Detector(std::shared_ptr<const Model> model, std::shared_ptr<Device> device,
                   const DetectorOptions& options)
    : model_(std::move(model)),
      max_image_pixels_(options.max_image_pixels),
      max_batch_(checked_batch(options)),
      batch_(std::make_unique<Batch>()),
      session_({model_, &model_->weights}, device, session_options(*model_, *device, options)),
      room_(model_->weights, *device, room_for_images(options)),
      map_sizes_(*model_) {}

Detector::~Detector() = default;

SessionStats Detector::stats() const {
  SessionStats stats = session_.stats();
  stats.pixel_bytes = room_.bytes();
  return stats;
}

// What every detection begins with, before anything is changed.
std::unique_lock<std::mutex> Detector::enter(const DetectRequest& request) {
  if (model_->config.kind != ModelKind::detector && !request.want_tensors)
    throw Error(ErrorCode::bad_model,
                fmt::format("{}: a backbone without a detection head; it can only be run for its values",
                            model_->weights.source()));
  std::unique_lock lock(session_.mutex(), std::try_to_lock);
  if (!lock.owns_lock())
    throw Error(ErrorCode::invalid_argument,
                "this detector is in use by another thread; make one for each thread");
  return lock;
}

// Each image by itself; the network's input is as large as the largest in either direction.
void Detector::scale(std::span<const ImageView> images) {
  Batch& batch = *batch_;
  batch.begin(GraphRequest::Source::image, images.size());
  batch.images = images;
  for (std::size_t n = 0; n < images.size(); ++n) {
    const ImageView& image = images[n];
    const double scale = batch.scale[n] = image_scale(model_->config, image.height, image.width);
    const auto height = std::llrint(image.height * scale), width = std::llrint(image.width * scale);
    const auto fail = [&](const char* what) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{}an image of {}x{} pixels has {} left at scale {}",
                              name_of_image(n, images.size()), image.width, image.height, what, scale));
    };
    if (height < 1 || width < 1) fail("no pixel");
    const auto& maps = batch.map_sizes[n] = map_sizes_.of(height, width);
    // Alone it is refused by the layer that it is too small for.
    if (images.size() > 1 && *std::min_element(maps.begin(), maps.end()) < 1) fail("no cell of a map");
    batch.im_info[n] = {static_cast<float>(height), static_cast<float>(width), static_cast<float>(scale)};
    batch.image_size[n] = {static_cast<float>(image.height), static_cast<float>(image.width)};
    batch.height = std::max<std::int64_t>(batch.height, height);
    batch.width = std::max<std::int64_t>(batch.width, width);
    SourceImage& source = batch.sources[n];
    source.inverse_scale = 1.0 / scale;
    source.out_height = static_cast<std::int32_t>(height);
    source.out_width = static_cast<std::int32_t>(width);
  }
}

std::vector<DetectResult> Detector::detect(std::span<const ImageView> images, const DetectRequest& request) {
  if (images.size() > max_batch_)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a batch of {} images, the detector was made for at most {} (max_batch)",
                            images.size(), max_batch_));
  for (std::size_t n = 0; n < images.size(); ++n)
    check_image(images[n], max_image_pixels_, name_of_image(n, images.size()));
  const std::unique_lock lock = enter(request);
  if (images.empty()) return {};
  scale(images);
  return infer(request);
}

DetectResult Detector::detect(const ImageView& image, const DetectRequest& request) {
  return std::move(detect(std::span(&image, 1), request).front());
}

DetectResult Detector::run(std::span<const float> data_nchw, std::int64_t height, std::int64_t width,
                           std::array<float, 3> im_info, std::optional<std::array<float, 2>> image_size,
                           const DetectRequest& request) {
  if (height < 1 || width < 1 || static_cast<std::int64_t>(data_nchw.size()) != 3 * height * width)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("data: {} values are not 1x3x{}x{}", data_nchw.size(), height, width));
  const bool sane =
      std::all_of(im_info.begin(), im_info.end(), [](float x) { return std::isfinite(x) && x > 0; });
  if (!sane)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("im_info: expected height, width and scale, all positive, got {}, {}, {}",
                            im_info[0], im_info[1], im_info[2]));
  // A padded input may be larger than the image in it, never smaller.
  if (im_info[0] > static_cast<float>(height) || im_info[1] > static_cast<float>(width))
    throw Error(ErrorCode::invalid_argument,
                fmt::format("im_info: an image of {}x{} does not fit an input of {}x{}", im_info[0],
                            im_info[1], height, width));
  const std::unique_lock lock = enter(request);
  Batch& batch = *batch_;
  batch.begin(GraphRequest::Source::blob, 1);
  batch.height = height;
  batch.width = width;
  batch.scale[0] = im_info[2];
  batch.im_info[0] = im_info;
  batch.image_size[0] = image_size.value_or(
      std::array<float, 2>{std::nearbyint(im_info[0] / im_info[2]), std::nearbyint(im_info[1] / im_info[2])});
  batch.map_sizes[0] = map_sizes_.of(height, width);
  batch.data_nchw = data_nchw;
  return std::move(infer(request).front());
}

void Detector::feed(Executable& executable, const DetectRequest& request) const {
  const Batch& batch = *batch_;
  if (batch.source == GraphRequest::Source::image)
    executable.set("images", batch.sources.data(), batch.size() * sizeof batch.sources[0]);
  else
    set_data(executable, batch.data_nchw);
  if (model_->config.kind != ModelKind::detector) return;
  executable.set("im_info", batch.im_info.data(), batch.size() * sizeof batch.im_info[0]);
  executable.set("image_size", batch.image_size.data(), batch.size() * sizeof batch.image_size[0]);
  executable.set("map_sizes", batch.map_sizes.data(), batch.size() * sizeof batch.map_sizes[0]);
  if (request.proposals) set_proposals(executable, request.proposals, batch.im_info);
}

std::vector<DetectResult> Detector::infer(const DetectRequest& request) {
  const Batch& batch = *batch_;
  const ModelConfig& config = model_->config;
  const std::int64_t external = request.proposals ? rows_for(request.proposals, batch.size()) : 0;
  const GraphRequest wanted{batch.source, static_cast<std::int64_t>(batch.size()), batch.height, batch.width,
                            external};
  const auto build = [&] { return build_graph(*model_, wanted); };
  struct Release {
    PixelRoom& room;
    ~Release() { room.release(); }
  } const release{room_};
  room_.place(batch.images, batch_->sources);
  // Every value at once, and what the arena was not sized for (a blob beyond the scale rule's sizes, more
  // RoIs than the network's own proposals), get memory of their own; all else shares the arena.
  std::unique_ptr<Executable> own;
  const bool oversized =
      batch.source == GraphRequest::Source::blob &&
      (std::max(batch.height, batch.width) > std::max(config.short_side, config.long_side) ||
       batch.height * batch.width > std::int64_t{config.short_side} * config.long_side);
  const bool many_rois = external > std::max<std::int64_t>(1, config.post_nms_top_n);
  if (request.want_tensors || oversized || many_rois) {
    const Graph graph = build();
    const auto keep =
        request.want_tensors ? names_of(graph, has_published_floats) : std::vector<std::string>{};
    own = std::make_unique<Executable>(graph, keep, session_.weights(), session_.device());
  }
  const PlanKey key{static_cast<std::int64_t>(wanted.source), wanted.batch, wanted.height, wanted.width,
                    external};
  Executable& executable = own ? *own : session_.executable(key, build);

  feed(executable, request);
  room_.upload();
  std::vector<DetectResult> results(batch.size());
  executable.run(request.want_times ? &results[0].times : nullptr);

  const bool detector = config.kind == ModelKind::detector;
  if (detector &&
      (get_int(executable, "head_nonfinite") || (!external && get_int(executable, "rpn_nonfinite")))) {
    const Graph graph = build();
    std::string where =
        fmt::format("{}; there is no memory to find out which value is the first", nonfinite_result);
    try {
      Executable all(graph, names_of(graph, [](const Value& v) { return v.role != Role::weight; }),
                     session_.weights(), session_.device());
      feed(all, request);
      all.run();
      where = first_nonfinite(all, batch.size());
    } catch (const Error& error) {
      if (error.code() != ErrorCode::out_of_memory) throw;
    }
    throw Error(ErrorCode::numeric, where);
  }
  for (std::size_t n = 0; n < results.size(); ++n) {
    DetectResult& result = results[n];
    result.height = static_cast<int>(batch.image_size[n][0]);
    result.width = static_cast<int>(batch.image_size[n][1]);
    result.scale = batch.scale[n];
    if (detector) read_detections(executable, n, request.want_proposals, result);
    if (!request.want_tensors) continue;
    for (const Value& value : executable.graph().values())
      if (has_published_floats(value))
        result.tensors.push_back(published(executable, value, n, batch.size()));
  }
  return results;
}

void Detector::read_detections(const Executable& executable, std::size_t n, bool want_proposals,
                               DetectResult& result) {
  const std::size_t row = 6 * sizeof(float);
  const auto capacity = static_cast<std::size_t>(executable.view("detections").shape[1]);
  result.proposal_count = get_int(executable, "rois_count", n);
  scratch_.resize(static_cast<std::size_t>(get_int(executable, "detections_count", n)) * 6);
  executable.get("detections", scratch_.data(), scratch_.size() * sizeof(float), n * capacity * row);
  result.detections.reserve(scratch_.size() / 6);
  for (std::size_t i = 0; i < scratch_.size(); i += 6)
    result.detections.push_back({static_cast<int>(scratch_[i]),
                                 scratch_[i + 1],
                                 {scratch_[i + 2], scratch_[i + 3], scratch_[i + 4], scratch_[i + 5]}});
  if (!want_proposals) return;
  const auto count = static_cast<std::size_t>(result.proposal_count),
             most = static_cast<std::size_t>(executable.view("roi_scores").shape[0]) / batch_->size();
  const float scale = batch_->im_info[n][2];
  std::vector<float> rois(count * 5), scores(count);
  executable.get("rois", rois.data(), rois.size() * sizeof(float), n * most * 5 * sizeof(float));
  executable.get("roi_scores", scores.data(), scores.size() * sizeof(float), n * most * sizeof(float));
  for (std::size_t i = 0; i < count; ++i)
    result.proposals.push_back({scores[i],
                                {rois[i * 5 + 1] / scale, rois[i * 5 + 2] / scale, rois[i * 5 + 3] / scale,
                                 rois[i * 5 + 4] / scale}});
}

}  // namespace frcnn
