// `frcnn run`: the network on a given input, without decoding or resizing an image.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "commands.h"
#include "detector/detector.h"
#include "detector/faster_rcnn.h"
#include "device_options.h"
#include "dump_file.h"
#include "frcnn/error.h"
#include "model_io/model_file.h"
#include "model_io/safetensors.h"

namespace frcnn {
namespace {

struct RunOptions {
  std::string model, input, output;
  DeviceOptions device;
};

constexpr float longest_original = 1 << 20;  // pixels of a side

constexpr const char* run_help =
    "BLOB is a safetensors file with f32 tensors\n"
    "  data        [1,3,H,W]  the network's input: B, G, R planes, mean subtracted, resized\n"
    "  im_info     [1,3]      height and width of the image within data, and its scale (network pixels per\n"
    "                         original pixel); not for a backbone. Without it the image fills data, at the "
    "scale\n"
    "                         that the model's rule gives for image_size, or for a u8 tensor image_bgr "
    "[h,w,3]\n"
    "  image_size  [1,2]      height, width of the original image; without it round(im_info / scale)\n"
    "and maybe others, which are passed over. OUT holds every named value in network order and\n"
    "detections [n,6] = class, score, x1, y1, x2, y2 in original pixels.\n"
    "\n"
    "Example: is this engine's network the one that the reference computed?\n"
    "  frcnn run zf.safetensors reference.safetensors ours.safetensors\n"
    "  frcnn diff reference.safetensors ours.safetensors";

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ","));
}

// The tensor's values, copied because a file's tensors need not be aligned. A negative dimension means any.
std::vector<float> read_tensor(const StoredTensor& tensor, const std::vector<std::int64_t>& expected,
                               const std::string& path) {
  if (tensor.dtype != DType::f32) {
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: {} is {}, expected f32", path, tensor.name, name_of(tensor.dtype)));
  }
  bool fits = tensor.shape.size() == expected.size();
  std::string wanted;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    wanted += (i == 0 ? "" : ",") + (expected[i] < 0 ? std::string("any") : std::to_string(expected[i]));
    fits = fits && (expected[i] < 0 ? tensor.shape[i] > 0 : tensor.shape[i] == expected[i]);
  }
  if (!fits) {
    throw Error(ErrorCode::bad_file, fmt::format("{}: {} has shape {}, expected [{}]", path, tensor.name,
                                                 shape_text(tensor.shape), wanted));
  }
  std::vector<float> values(tensor.bytes / sizeof(float));
  std::memcpy(values.data(), tensor.data, tensor.bytes);
  return values;
}

const StoredTensor& required(const SafetensorsFile& file, const char* name) {
  if (const StoredTensor* tensor = file.find(name)) return *tensor;
  throw Error(
      ErrorCode::bad_file,
      fmt::format("{}: has no tensor `{}`; `frcnn run --help` lists what it needs", file.path(), name));
}

void check_positive(const std::vector<float>& values, const char* name, const std::string& path) {
  for (const float value : values) {
    if (!(std::isfinite(value) && value > 0)) {
      throw Error(ErrorCode::bad_file,
                  fmt::format("{}: {} holds {}, expected positive numbers", path, name, value));
    }
  }
}

// Checked here, because the first ReLU would turn a NaN into a zero.
void check_finite(const std::vector<float>& values, const char* name, const std::string& path) {
  const auto bad = std::find_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
  if (bad == values.end()) return;
  throw Error(ErrorCode::numeric, fmt::format("{}: {} holds {} at element {}, expected finite numbers", path,
                                              name, *bad, bad - values.begin()));
}

// How the image lies in the network's input.
struct Placement {
  std::array<float, 3> im_info{};
  std::optional<std::array<float, 2>> image_size;
};

// For a file without im_info.
std::array<float, 3> implied_info(const SafetensorsFile& file, const ModelConfig& config,
                                  std::array<float, 2> data,
                                  const std::optional<std::array<float, 2>>& image_size) {
  std::optional<std::array<float, 2>> original = image_size;
  if (const StoredTensor* image = file.find("image_bgr"); image && !original) {
    if (image->dtype == DType::u8 && image->shape.size() == 3 && image->shape[2] == 3 &&
        image->shape[0] > 0 && image->shape[1] > 0)
      original = {static_cast<float>(image->shape[0]), static_cast<float>(image->shape[1])};
  }
  if (!original)
    throw Error(ErrorCode::bad_file, fmt::format("{}: has no tensor `im_info`, and neither image_size nor "
                                                 "image_bgr to tell it from; `frcnn run --help` "
                                                 "lists what it needs",
                                                 file.path()));
  const double scale = image_scale(config, static_cast<std::int64_t>((*original)[0]),
                                   static_cast<std::int64_t>((*original)[1]));
  for (std::size_t i = 0; i < 2; ++i) {
    if (static_cast<float>(std::nearbyint((*original)[i] * scale)) != data[i])
      throw Error(ErrorCode::bad_file, fmt::format("{}: has no tensor `im_info`; by the model's rule an "
                                                   "image of {}x{} gives an input of {}x{}, data "
                                                   "is {}x{}",
                                                   file.path(), (*original)[0], (*original)[1],
                                                   std::nearbyint((*original)[0] * scale),
                                                   std::nearbyint((*original)[1] * scale), data[0], data[1]));
  }
  return {data[0], data[1], static_cast<float>(scale)};
}

Placement placement(const SafetensorsFile& file, const ModelConfig& config, std::array<float, 2> data) {
  Placement result;
  if (const StoredTensor* tensor = file.find("image_size")) {
    const std::vector<float> size = read_tensor(*tensor, {1, 2}, file.path());
    check_positive(size, "image_size", file.path());
    result.image_size = {size[0], size[1]};
  }
  if (!file.find("im_info")) {
    result.im_info = implied_info(file, config, data, result.image_size);
    return result;
  }
  const std::vector<float> info = read_tensor(required(file, "im_info"), {1, 3}, file.path());
  check_positive(info, "im_info", file.path());
  // A padded input may be larger than the image in it.
  if (info[0] > data[0] || info[1] > data[1])
    throw Error(ErrorCode::bad_file, fmt::format("{}: im_info says {}x{}, data has only {}x{}", file.path(),
                                                 info[0], info[1], data[0], data[1]));
  if (info[0] / info[2] < 0.5f || info[1] / info[2] < 0.5f || info[0] / info[2] > longest_original ||
      info[1] / info[2] > longest_original)
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: im_info has scale {}, so the original image would have {}x{} pixels",
                            file.path(), info[2], info[0] / info[2], info[1] / info[2]));
  result.im_info = {info[0], info[1], info[2]};
  return result;
}

int run(const RunOptions& options) {
  DetectorOptions on = detector_options(options.device);
  on.max_image_pixels = 0;  // no original comes
  const std::shared_ptr<const Model> model = load_model(options.model);
  const std::shared_ptr<const SafetensorsFile> file = SafetensorsFile::open(options.input);
  const bool is_detector = model->config.kind == ModelKind::detector;
  const StoredTensor& data_tensor = required(*file, "data");
  const std::vector<float> data = read_tensor(data_tensor, {1, 3, -1, -1}, options.input);
  check_finite(data, "data", options.input);
  const std::int64_t height = data_tensor.shape[2], width = data_tensor.shape[3];
  const std::array<float, 2> size{static_cast<float>(height), static_cast<float>(width)};
  Placement image{{size[0], size[1], 1.0f}, std::nullopt};
  if (is_detector) image = placement(*file, model->config, size);
  Detector detector(model, open_device(on), on);
  DetectRequest request;
  request.want_tensors = true;
  const DetectResult result = detector.run(data, height, width, image.im_info, image.image_size, request);
  write_dump(options.output, *model, result);
  if (is_detector) {
    fmt::print("{}: {} values, {} proposals, {} detections on {}\n", options.output, result.tensors.size(),
               result.proposal_count, result.detections.size(), detector.device().name());
  } else {
    fmt::print("{}: {} values of a backbone on {}\n", options.output, result.tensors.size(),
               detector.device().name());
  }
  return exit_ok;
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command =
      app.add_subcommand("run", "Run the network on a stored input and store every layer's output");
  command->add_option("MODEL", options->model, "A model that `frcnn convert` wrote")
      ->required()
      ->type_name("");
  command->add_option("BLOB", options->input, "The input, safetensors")->required()->type_name("");
  command->add_option("OUT", options->output, "The outputs, safetensors")->required()->type_name("");
  add_device_options(*command, options->device);
  command->footer(run_help);
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace frcnn
