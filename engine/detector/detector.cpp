#include "detector/detector.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "detector/faster_rcnn.h"
#include "frcnn/error.h"
#include "graph/dtype.h"

namespace frcnn {

// One network input on its way in; `pixels` or `data` holds it, packed NHWC.
struct Detector::Input {
  GraphRequest::Source source = GraphRequest::Source::image;
  std::int64_t height = 0, width = 0;  // of the image or blob
  double scale = 1.0;
  std::array<float, 3> im_info{};
  std::array<float, 2> image_size{};
  const ImageView* image = nullptr;
  PixelFormat format = PixelFormat::bgr;
  std::span<const float> data_nchw;
};

namespace {

// The picture that the arena of another device than the host has room for. On the host room is reserved
// address space, on a GPU it is memory; larger pictures get an arena of their own there, for the time of
// their detection.
constexpr std::int64_t device_image_pixels = 16LL << 20;

std::int64_t room_for_image(const Device& device, const DetectorOptions& options) {
  return device.is_host() ? options.max_image_pixels
                          : std::min(options.max_image_pixels, device_image_pixels);
}

// The arena must hold every image that the model's scale rule can produce: the two extreme shapes, whose
// plans the others stay below (checked when one is made), and the original pixels.
SessionOptions session_options(const Model& model, Device& device, const DetectorOptions& options) {
  SessionOptions session{0, options.cached_plans};
  const int sides[2] = {model.config.short_side, model.config.long_side};
  // A ready blob is f32, which in a 16-bit program is more than what a picture becomes.
  std::vector<GraphRequest::Source> sources{GraphRequest::Source::image};
  if (storage_of(device.precision()) != DType::f32) sources.push_back(GraphRequest::Source::blob);
  for (const GraphRequest::Source source : sources) {
    for (int i : {0, 1}) {
      const GraphRequest request{source, 1, sides[i], sides[1 - i], 1.0, 0};
      const Executable extreme(build_graph(model, request), {}, model.weights, device, {ProgramMemory::none});
      session.arena_bytes = std::max(session.arena_bytes, extreme.plan().arena_bytes);
      session.packed.insert(session.packed.end(), extreme.packed().begin(), extreme.packed().end());
    }
  }
  // Three bytes for each pixel; only of a single pixel does NV12 have more.
  session.arena_bytes += static_cast<std::size_t>(room_for_image(device, options)) * 3 + 1;
  return session;
}

// One plane of a picture: `rows` rows of `bytes` bytes that are `step` apart.
struct Plane {
  const std::uint8_t* data = nullptr;
  std::size_t bytes = 0;
  std::int64_t rows = 0;
  std::ptrdiff_t step = 0;
};

// The planes of a picture; the second has no rows where there is one.
std::array<Plane, 2> planes_of(const ImageView& image) {
  const auto width = static_cast<std::size_t>(image.width);
  const auto step = [](std::ptrdiff_t given, std::size_t packed) {
    return given ? given : static_cast<std::ptrdiff_t>(packed);
  };
  if (image.format != PixelFormat::nv12)
    return {{{image.data, 3 * width, image.height, step(image.row_bytes, 3 * width)}, {}}};
  const std::size_t pairs = (width + 1) / 2 * 2;
  const Plane luma{image.data, width, image.height, step(image.row_bytes, width)};
  const std::ptrdiff_t below = image.chroma_row_bytes ? image.chroma_row_bytes : step(image.row_bytes, pairs);
  return {
      {luma,
       {image.chroma ? image.chroma : luma.data + luma.rows * luma.step, pairs, (luma.rows + 1) / 2, below}}};
}

void check_image(const ImageView& image, std::int64_t max_pixels) {
  const auto fail = [](std::string message) { throw Error(ErrorCode::invalid_argument, message); };
  if (!image.data || image.width < 1 || image.height < 1)
    fail(fmt::format("an image of {}x{} pixels has nothing in it", image.width, image.height));
  if (static_cast<std::int64_t>(image.width) * image.height > max_pixels)
    fail(fmt::format("an image of {}x{} pixels is larger than the {} pixels allowed", image.width,
                     image.height, max_pixels));
  for (const Plane& plane : planes_of(image))
    if (plane.rows > 1 && static_cast<std::size_t>(std::abs(plane.step)) < plane.bytes)
      fail(fmt::format("an image of {}x{} pixels has rows of {} bytes, which cannot lie {} bytes apart",
                       image.width, image.height, plane.bytes, plane.step));
}

// Straight into the memory that goes to the device; one copy where the rows lie as there.
void set_image(Executable& executable, const ImageView& image) {
  const std::array<Plane, 2> planes = planes_of(image);
  const std::size_t pitch = planes[1].rows ? planes[1].bytes : planes[0].bytes;
  auto* to = static_cast<std::uint8_t*>(executable.input("image"));
  if (planes[1].rows == 0 && planes[0].step == static_cast<std::ptrdiff_t>(pitch)) {
    std::memcpy(to, image.data, pitch * static_cast<std::size_t>(image.height));
    return;
  }
  for (const Plane& plane : planes)
    for (std::int64_t y = 0; y < plane.rows; ++y, to += pitch)
      std::memcpy(to, plane.data + y * plane.step, plane.bytes);
}

void set_data(Executable& executable, std::span<const float> nchw) {
  const Shape shape = executable.view("data").shape;
  const std::int64_t plane = shape[1] * shape[2];
  auto* const nhwc = static_cast<float*>(executable.input("data"));
  for (std::int64_t c = 0; c < 3; ++c)
    for (std::int64_t p = 0; p < plane; ++p) nhwc[p * 3 + c] = nchw[static_cast<std::size_t>(c * plane + p)];
}

void set_proposals(Executable& executable, const std::vector<Proposal>& proposals, float scale) {
  const auto capacity = static_cast<std::size_t>(executable.view("roi_scores").shape[0]);
  const std::span rois(static_cast<float*>(executable.input("rois")), capacity * 5);
  const std::span scores(static_cast<float*>(executable.input("roi_scores")), capacity);
  std::fill(rois.begin(), rois.end(), 0.0f);
  std::fill(scores.begin(), scores.end(), 0.0f);
  for (std::size_t i = 0; i < proposals.size(); ++i) {
    for (std::size_t k = 0; k < 4; ++k) rois[i * 5 + 1 + k] = proposals[i].box[k] * scale;
    scores[i] = proposals[i].score;
  }
  const auto count = static_cast<std::int32_t>(proposals.size());
  executable.set("rois_count", &count, sizeof count);
}

std::int32_t get_int(const Executable& executable, std::string_view name) {
  std::int32_t value = 0;
  executable.get(name, &value, sizeof value);
  return value;
}

std::vector<float> get_floats(const Executable& executable, const Value& value) {
  std::vector<float> data(static_cast<std::size_t>(value.spec.shape.elements()));
  if (value.spec.dtype == DType::f32) {
    executable.get(value.name, data.data(), value.spec.bytes());
    return data;
  }
  std::vector<std::byte> stored(value.spec.bytes());
  executable.get(value.name, stored.data(), stored.size());
  to_f32({stored.data(), value.spec.shape, value.spec.dtype}, data.data());
  return data;
}

// The value as published: only rows that count, maps as N,C,H,W.
NamedTensor published(const Executable& executable, const Value& value) {
  const Shape& shape = value.spec.shape;
  NamedTensor tensor{value.name, shape, get_floats(executable, value)};
  if (value.count >= 0) {
    const std::int64_t rows = get_int(executable, executable.graph().value(value.count).name);
    if (shape.rank == 3) tensor.shape = Shape{shape[1], shape[2]};  // one image's detections
    tensor.shape[0] = rows;
    tensor.data.resize(static_cast<std::size_t>(tensor.shape.elements()));
  }
  if (tensor.shape.rank != 4) return tensor;
  const std::int64_t n = tensor.shape[0], plane = shape[1] * shape[2], channels = shape[3];
  std::vector<float> nchw(tensor.data.size());
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t p = 0; p < plane; ++p)
      for (std::int64_t c = 0; c < channels; ++c)
        nchw[static_cast<std::size_t>((i * channels + c) * plane + p)] =
            tensor.data[static_cast<std::size_t>((i * plane + p) * channels + c)];
  tensor.shape = Shape{n, channels, shape[1], shape[2]};
  tensor.data = std::move(nchw);
  return tensor;
}

bool is_real(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

bool has_published_floats(const Value& value) {
  return value.role != Role::weight && is_real(value.spec.dtype) && !is_internal(value);
}

std::vector<std::string> names_of(const Graph& graph, bool (*wanted)(const Value&)) {
  std::vector<std::string> names;
  for (const Value& value : graph.values())
    if (wanted(value)) names.push_back(value.name);
  return names;
}

// Which value of a finished run holds the first NaN or infinity, as a sentence. Values of the proposal stage
// may hold minus infinity by design and only repeat what stands in earlier ones.
std::string first_nonfinite(const Executable& executable) {
  for (const Value& value : executable.graph().values()) {
    if (value.role == Role::weight || !is_real(value.spec.dtype) || value.name.ends_with("@decoded") ||
        value.name.ends_with("@top"))
      continue;
    const std::vector<float> data = get_floats(executable, value);
    const auto bad = std::find_if(data.begin(), data.end(), [](float x) { return !std::isfinite(x); });
    if (bad != data.end())
      return fmt::format(
          "{}: {} at element {} of {} (NHWC); this is the first value of the network that is not finite",
          value.name, *bad, bad - data.begin(), to_string(value.spec.shape));
  }
  return "a score or box delta is not finite";
}

}  // namespace

Detector::Detector(std::shared_ptr<const Model> model, const DetectorOptions& options)
    : Detector(std::move(model), make_device(options.device, options.precision, options.threads, nullptr, options.gpu),
               options) {}

Detector::Detector(std::shared_ptr<const Model> model, std::shared_ptr<Device> device,
                   const DetectorOptions& options)
    : model_(std::move(model)),
      max_image_pixels_(options.max_image_pixels),
      arena_image_pixels_(room_for_image(*device, options)),
      session_({model_, &model_->weights}, device, session_options(*model_, *device, options)) {}

DetectResult Detector::detect(const ImageView& image, const DetectRequest& request) {
  check_image(image, max_image_pixels_);
  Input input;
  input.height = image.height;
  input.width = image.width;
  input.image = &image;
  input.format = image.format;
  input.scale = image_scale(model_->config, image.height, image.width);
  const auto side = [&](int n) { return static_cast<float>(std::nearbyint(n * input.scale)); };
  input.im_info = {side(image.height), side(image.width), static_cast<float>(input.scale)};
  input.image_size = {static_cast<float>(image.height), static_cast<float>(image.width)};
  return infer(input, request);
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
  Input input;
  input.source = GraphRequest::Source::blob;
  input.height = height;
  input.width = width;
  input.scale = im_info[2];
  input.im_info = im_info;
  input.image_size = image_size.value_or(
      std::array<float, 2>{std::nearbyint(im_info[0] / im_info[2]), std::nearbyint(im_info[1] / im_info[2])});
  input.data_nchw = data_nchw;
  return infer(input, request);
}

DetectResult Detector::infer(const Input& input, const DetectRequest& request) {
  const bool detector = model_->config.kind == ModelKind::detector;
  if (!detector && !request.want_tensors)
    throw Error(ErrorCode::bad_model,
                fmt::format("{}: a backbone without a detection head; it can only be run for its values",
                            model_->weights.source()));
  const std::unique_lock lock(session_.mutex(), std::try_to_lock);
  if (!lock.owns_lock())
    throw Error(ErrorCode::invalid_argument,
                "this detector is in use by another thread; make one for each thread");

  const std::int64_t external =
      request.proposals ? std::max<std::int64_t>(1, static_cast<std::int64_t>(request.proposals->size())) : 0;
  const auto build = [&] {
    return build_graph(*model_,
                       {input.source, 1, input.height, input.width, input.scale, external, input.format});
  };
  // Every value at once, and what the arena was not sized for (a blob beyond the scale rule's sizes, a
  // picture beyond its room, more RoIs than the network's own proposals), get memory of their own; all else
  // shares the arena.
  std::unique_ptr<Executable> own;
  const ModelConfig& config = model_->config;
  const bool oversized =
      input.source == GraphRequest::Source::image
          ? input.height * input.width > arena_image_pixels_
          : std::max(input.height, input.width) > std::max(config.short_side, config.long_side) ||
                input.height * input.width > std::int64_t{config.short_side} * config.long_side;
  const bool many_rois = external > std::max<std::int64_t>(1, config.post_nms_top_n);
  if (request.want_tensors || oversized || many_rois) {
    const Graph graph = build();
    const auto keep =
        request.want_tensors ? names_of(graph, has_published_floats) : std::vector<std::string>{};
    own = std::make_unique<Executable>(graph, keep, session_.weights(), session_.device());
  }
  const PlanKey key{static_cast<std::int64_t>(input.source), input.height, input.width, external,
                    static_cast<std::int64_t>(input.format)};
  Executable& executable = own ? *own : session_.executable(key, build);

  const auto feed = [&](Executable& to) {
    if (input.image)
      set_image(to, *input.image);
    else
      set_data(to, input.data_nchw);
    if (!detector) return;
    to.set("im_info", input.im_info.data(), sizeof input.im_info);
    to.set("image_size", input.image_size.data(), sizeof input.image_size);
    if (request.proposals) set_proposals(to, *request.proposals, input.im_info[2]);
  };
  feed(executable);
  DetectResult result;
  executable.run(request.want_times ? &result.times : nullptr);

  result.height = static_cast<int>(input.image_size[0]);
  result.width = static_cast<int>(input.image_size[1]);
  result.scale = input.scale;
  if (detector) {
    if (get_int(executable, "head_nonfinite") || (!external && get_int(executable, "rpn_nonfinite"))) {
      const Graph graph = build();
      Executable all(graph, names_of(graph, [](const Value& v) { return v.role != Role::weight; }),
                     session_.weights(), session_.device());
      feed(all);
      all.run();
      throw Error(ErrorCode::numeric, first_nonfinite(all));
    }
    read_detections(executable, input.im_info[2], request.want_proposals, result);
  }
  if (request.want_tensors)
    for (const Value& value : executable.graph().values())
      if (has_published_floats(value)) result.tensors.push_back(published(executable, value));
  return result;
}

void Detector::read_detections(const Executable& executable, float scale, bool want_proposals,
                               DetectResult& result) {
  result.proposal_count = get_int(executable, "rois_count");
  scratch_.resize(static_cast<std::size_t>(get_int(executable, "detections_count")) * 6);
  executable.get("detections", scratch_.data(), scratch_.size() * sizeof(float));
  result.detections.reserve(scratch_.size() / 6);
  for (std::size_t i = 0; i < scratch_.size(); i += 6)
    result.detections.push_back({static_cast<int>(scratch_[i]),
                                 scratch_[i + 1],
                                 {scratch_[i + 2], scratch_[i + 3], scratch_[i + 4], scratch_[i + 5]}});
  if (!want_proposals) return;
  const auto count = static_cast<std::size_t>(result.proposal_count);
  std::vector<float> rois(count * 5), scores(count);
  executable.get("rois", rois.data(), rois.size() * sizeof(float));
  executable.get("roi_scores", scores.data(), scores.size() * sizeof(float));
  for (std::size_t i = 0; i < count; ++i)
    result.proposals.push_back({scores[i],
                                {rois[i * 5 + 1] / scale, rois[i * 5 + 2] / scale, rois[i * 5 + 3] / scale,
                                 rois[i * 5 + 4] / scale}});
}

}  // namespace frcnn
