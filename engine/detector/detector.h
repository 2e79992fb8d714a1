// Images in, boxes out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "detector/model.h"
#include "runtime/session.h"

namespace frcnn {

// An 8-bit picture in the caller's memory. bgr and rgb are interleaved; nv12 is what video decoders deliver, BT.601
// limited range (docs/numerics.md states the conversion): `data` is the luma plane, `chroma` the plane of U, V pairs, one
// for 2x2 pixels, ceil(height/2) rows of ceil(width/2) pairs. Rows may be any distance apart, backwards too.
struct ImageView {
  const std::uint8_t* data = nullptr;          // the top left pixel
  int width = 0, height = 0;
  std::ptrdiff_t row_bytes = 0;                // from a row to the one below it; 0: packed
  PixelFormat format = PixelFormat::bgr;
  const std::uint8_t* chroma = nullptr;        // nv12; null: where the luma's rows end, data + height * row_bytes
  std::ptrdiff_t chroma_row_bytes = 0;         // nv12; 0: as row_bytes, or packed if that is 0
};

struct Detection {
  int class_id = 0;                            // 1..C-1; 0 is the background and never appears
  float score = 0;
  std::array<float, 4> box{};                  // x1,y1,x2,y2, inclusive, pixels of the original image
};

struct Proposal {
  float score = 0;
  std::array<float, 4> box{};                  // pixels of the original image
};

struct NamedTensor {
  std::string name;
  Shape shape;                                 // N,C,H,W or the value's own
  std::vector<float> data;
};

struct DetectRequest {
  bool want_proposals = false;
  bool want_times = false;
  bool want_tensors = false;                   // every named value, NCHW f32
  const std::vector<Proposal>* proposals = nullptr;   // in place of the RPN's, original pixels
};

struct DetectResult {
  int width = 0, height = 0;
  double scale = 1;
  std::int64_t proposal_count = 0;
  std::vector<Detection> detections;           // by class ascending, score descending
  std::vector<Proposal> proposals;             // want_proposals
  std::vector<NodeTime> times;                 // want_times
  std::vector<NamedTensor> tensors;            // want_tensors, in network order
};

struct DetectorOptions {
  std::string device = "auto";
  Precision precision = Precision::fp32;
  int threads = 0;                             // CPU; <= 0: all
  GpuOptions gpu;                              // not on the CPU
  std::size_t cached_plans = 16;
  std::int64_t max_image_pixels = 256LL << 20; // of an original image; on a GPU the arena has room for 16 Mi
};

// One session. For one thread at a time: a second caller gets Error(invalid_argument) and nothing is disturbed. Make one
// detector per thread; they share the model's packed weights.
class Detector {
 public:
  // Reserves the arena for the largest image that the model's short_side and long_side allow, and for the original
  // of up to max_image_pixels (on a GPU 16 Mi: for a larger one memory is taken and given back by each detect()).
  Detector(std::shared_ptr<const Model> model, const DetectorOptions& options);
  // On a device made elsewhere; the options' device, precision, threads and gpu do not count.
  Detector(std::shared_ptr<const Model> model, std::shared_ptr<Device> device, const DetectorOptions& options);

  // Throws Error(invalid_argument) for an empty or too large image or rows that overlap, Error(bad_model) for a backbone model, Error(numeric)
  // naming the first value with a NaN or infinity. After the first image of a size, nothing but the result is allocated.
  DetectResult detect(const ImageView& image, const DetectRequest& request = {});

  // The same from a network input: `data` is [1,3,H,W] (mean subtracted, resized), image_size the original's
  // height and width, or nothing to take round(im_info / scale). Throws Error(invalid_argument) for an im_info that is not
  // finite, positive and within height and width.
  DetectResult run(std::span<const float> data_nchw, std::int64_t height, std::int64_t width,
                   std::array<float, 3> im_info, std::optional<std::array<float, 2>> image_size,
                   const DetectRequest& request = {});

  const Model& model() const { return *model_; }
  Device& device() { return session_.device(); }
  Session& session() { return session_; }

 private:
  struct Input;
  DetectResult infer(const Input& input, const DetectRequest& request);
  void read_detections(const Executable& executable, float scale, bool want_proposals, DetectResult& result);
  std::shared_ptr<const Model> model_;
  std::int64_t max_image_pixels_;
  std::int64_t arena_image_pixels_;            // larger pictures get an arena of their own
  std::vector<float> scratch_;                 // detections on their way to the result
  Session session_;
};

}  // namespace frcnn
