// Batches of images of different sizes against what each image gives alone, on any device.
#pragma once

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "batch_inputs.h"
#include "behind_the_heads.h"
#include "catch.h"
#include "tiny_detector.h"

namespace frcnn::test {

// A picture of random levels that owns its bytes, of any format and pitch, upside down in memory or not.
struct AnyPicture {
  std::vector<std::uint8_t> bytes;
  ImageView view;

  AnyPicture(int width, int height, unsigned seed, PixelFormat format = PixelFormat::bgr, int spare = 0,
             bool upwards = false) {
    const bool nv12 = format == PixelFormat::nv12;
    const int pitch = (nv12 ? (width + 1) / 2 * 2 : 3 * width) + spare,
              rows = nv12 ? height + (height + 1) / 2 : height;
    bytes.resize(static_cast<std::size_t>(pitch) * static_cast<std::size_t>(rows));
    std::mt19937 random(seed);
    for (std::uint8_t& b : bytes) b = static_cast<std::uint8_t>(random() >> 24);
    view = {bytes.data(), width, height, pitch, format};
    if (nv12) view.chroma = bytes.data() + pitch * height;
    if (!upwards) return;
    view.data += (height - 1) * pitch;
    view.row_bytes = -pitch;
    if (nv12) {
      view.chroma += ((height + 1) / 2 - 1) * pitch;
      view.chroma_row_bytes = -pitch;
    }
  }
  AnyPicture(const AnyPicture&) = delete;
  AnyPicture(AnyPicture&&) = default;
};

// Four sizes in four ways to lie in memory: wide, upright, a pixel, and one whose right edge lies so that a
// RoI at it reaches beyond its own map.
inline std::vector<AnyPicture> mixed_pictures() {
  std::vector<AnyPicture> pictures;
  pictures.emplace_back(80, 60, 1);
  pictures.emplace_back(51, 77, 2, PixelFormat::nv12, 6, true);
  pictures.emplace_back(1, 1, 3, PixelFormat::rgb);
  pictures.emplace_back(69, 64, 4, PixelFormat::rgb, 5);
  return pictures;
}

inline std::vector<ImageView> views_of(const std::vector<AnyPicture>& pictures) {
  std::vector<ImageView> views;
  for (const AnyPicture& picture : pictures) views.push_back(picture.view);
  return views;
}

// To the bit.
inline bool same_result(const DetectResult& a, const DetectResult& b) {
  const auto same_boxes = [](const auto& x, const auto& y, const auto& same) {
    return x.size() == y.size() && std::equal(x.begin(), x.end(), y.begin(), same);
  };
  return a.width == b.width && a.height == b.height && a.scale == b.scale &&
         a.proposal_count == b.proposal_count &&
         same_boxes(a.detections, b.detections,
                    [](const Detection& x, const Detection& y) {
                      return x.class_id == y.class_id && x.score == y.score && x.box == y.box;
                    }) &&
         same_boxes(a.proposals, b.proposals, [](const Proposal& x, const Proposal& y) {
           return x.score == y.score && x.box == y.box;
         });
}

inline const NamedTensor* tensor_of(const DetectResult& result, const std::string& name) {
  for (const NamedTensor& tensor : result.tensors)
    if (tensor.name == name) return &tensor;
  return nullptr;
}

// `shape` elements of the tensor, NHWC for maps: their upper left part, and rows beyond the tensor's zero.
inline std::vector<float> cut_to(const NamedTensor& tensor, const Shape& shape) {
  std::vector<float> values(static_cast<std::size_t>(shape.elements()), 0.0f);
  if (shape.rank != 4) {
    REQUIRE(tensor.data.size() <= values.size());
    std::copy(tensor.data.begin(), tensor.data.end(), values.begin());
    return values;
  }
  const std::int64_t height = tensor.shape[2], width = tensor.shape[3];
  REQUIRE((shape[0] == 1 && shape[1] <= height && shape[2] <= width && shape[3] == tensor.shape[1]));
  auto to = values.begin();
  for (std::int64_t y = 0; y < shape[1]; ++y)
    for (std::int64_t x = 0; x < shape[2]; ++x)
      for (std::int64_t c = 0; c < shape[3]; ++c)
        *to++ = tensor.data[static_cast<std::size_t>((c * height + y) * width + x)];
  return values;
}

// What `name` of a finished run of one image holds, as want_tensors shows it: rows that count, NCHW.
inline std::vector<float> rows_of(const Executable& executable, const std::string& name, std::int64_t rows) {
  const Shape shape = executable.view(name).shape;
  std::vector<float> data(static_cast<std::size_t>(rows * (shape.rank == 3 ? shape[2] : shape.row())));
  executable.get(name, data.data(), data.size() * sizeof(float));
  if (shape.rank != 4) return data;
  const std::int64_t plane = shape[1] * shape[2], channels = shape[3];
  std::vector<float> nchw(data.size());
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t p = 0; p < plane; ++p)
      for (std::int64_t c = 0; c < channels; ++c)
        nchw[static_cast<std::size_t>((r * channels + c) * plane + p)] =
            data[static_cast<std::size_t>((r * plane + p) * channels + c)];
  return nchw;
}

// Image `n` of a batch's result with all tensors against the part of a detector behind its products that is
// made for this image alone, fed with the batch's maps cut to the size that the image's own would have.
// Proposals, pooled features and detections must be equal to the bit. Returns how many numbers were compared.
inline std::size_t check_behind_the_heads(const Model& model, Device& device, const ImageView& view,
                                          const DetectResult& batched) {
  const BatchInputs inputs(model, std::span(&view, 1));
  const Graph graph = behind_the_heads(build_graph(model, inputs.request));
  const Weights none({}, "none");
  Executable alone(graph, {}, none, device);
  for (const Value& value : graph.values()) {
    if (value.role != Role::input) continue;
    INFO(value.name);
    if (value.name == "map_sizes") {
      alone.set(value.name, inputs.map_sizes.data(), sizeof inputs.map_sizes[0]);
    } else if (value.name == "im_info") {
      alone.set(value.name, inputs.im_info.data(), sizeof inputs.im_info[0]);
    } else if (value.name == "image_size") {
      alone.set(value.name, inputs.image_size.data(), sizeof inputs.image_size[0]);
    } else {
      const NamedTensor* const tensor = tensor_of(batched, value.name);
      REQUIRE(tensor);
      const std::vector<float> values = cut_to(*tensor, value.spec.shape);
      alone.set(value.name, values.data(), values.size() * sizeof(float));
    }
  }
  alone.run();
  const auto count_of = [&](const char* name) {
    std::int32_t count = 0;
    alone.get(name, &count, sizeof count);
    return std::int64_t{count};
  };
  const std::int64_t rois = count_of("rois_count"), found = count_of("detections_count");
  CHECK(rois == batched.proposal_count);
  CHECK(found == static_cast<std::int64_t>(batched.detections.size()));
  std::size_t compared = 2;
  for (const std::string& name :
       {std::string("rois"), std::string("roi_scores"), model.config.names.roi_pool, std::string("cls_prob"),
        std::string("pred_boxes"), std::string("detections")}) {
    INFO(name);
    const NamedTensor* const tensor = tensor_of(batched, name);
    REQUIRE(tensor);
    std::vector<float> got = tensor->data, want = rows_of(alone, name, name == "detections" ? found : rois);
    if (name == "rois")
      for (std::size_t i = 0; i < got.size(); i += 5) got[i] = 0;  // its number in the batch
    REQUIRE(got.size() == want.size());
    CHECK((got.empty() || std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) == 0));
    compared += got.size();
  }
  return compared;
}

// The whole batch.
inline std::size_t check_behind_the_heads(const Model& model, Detector& detector,
                                          std::span<const ImageView> views) {
  DetectRequest everything;
  everything.want_tensors = everything.want_proposals = true;
  const std::vector<DetectResult> batched = detector.detect(views, everything);
  REQUIRE(batched.size() == views.size());
  std::size_t compared = 0;
  for (std::size_t n = 0; n < views.size(); ++n) {
    INFO("image " << n);
    compared += check_behind_the_heads(model, detector.device(), views[n], batched[n]);
  }
  return compared;
}

// A model whose foreground scores are the higher the darker its features are: what lies in the padding, where
// features are exactly zero, scores one half, and a bright picture less.
inline std::shared_ptr<const Model> fond_of_padding() {
  ModelConfig config = tiny::config();
  config.pixel_mean = {0, 0, 0};
  tiny::Tensors tensors = tiny::tensors(config);
  for (auto& [name, tensor] : tensors) {
    if (name.rfind("conv", 0) != 0 && name.rfind("rpn_", 0) != 0) continue;
    const bool is_rpn_head = name.rfind("rpn_cls_score", 0) == 0 || name.rfind("rpn_bbox_pred", 0) == 0;
    const bool bias = name.find(".bias") != std::string::npos;
    for (float& v : tensor.values) v = bias || is_rpn_head ? 0.0f : std::abs(v) * 0.1f;
  }
  // The first half of the channels is background's.
  std::vector<float>& score = tensors["rpn_cls_score.weight"].values;
  for (std::size_t i = score.size() / 2; i < score.size(); ++i) score[i] = -0.01f;
  // The first anchor's boxes lie three of its widths to the left: those of the padding in the middle of the
  // picture.
  tensors["rpn_bbox_pred.bias"].values[0] = -3;
  return model_of(config, tensors);
}

}  // namespace frcnn::test
