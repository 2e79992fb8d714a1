// Images in, boxes out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "detector/image_view.h"
#include "detector/map_sizes.h"
#include "detector/model.h"
#include "detector/pixel_room.h"
#include "runtime/session.h"

namespace frcnn {

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
  // In place of the RPN's, original pixels: as many lists as there are images, one behind the other.
  const std::vector<Proposal>* proposals = nullptr;
};

struct DetectResult {
  int width = 0, height = 0;
  double scale = 1;
  std::int64_t proposal_count = 0;
  std::vector<Detection> detections;           // by class ascending, score descending
  std::vector<Proposal> proposals;             // want_proposals
  std::vector<NodeTime> times;                 // want_times; of the whole batch, with its first image
  std::vector<NamedTensor> tensors;            // want_tensors, in network order; maps with the batch's padding
};

struct DetectorOptions {
  std::string device = "auto";
  Precision precision = Precision::fp32;
  int threads = 0;                             // CPU; <= 0: all
  GpuOptions gpu;                              // not on the CPU
  std::size_t cached_plans = 16;
  std::int64_t max_image_pixels = 256LL << 20; // of an original image
  int max_batch = 1;                           // images of one call
};

// One session. For one thread at a time: a second caller gets Error(invalid_argument) and nothing is disturbed. Make one
// detector per thread; they share the model's packed weights.
class Detector {
 public:
  // Reserves the arena for the largest network input that the model's short_side and long_side allow, and
  // with max_batch > 1 for that many in a square of long_side, as a batch of upright and of wide images needs
  // it. On a GPU also room for the originals of a batch, of up to 16 Mi pixels together, and as much
  // page-locked memory: for more, both are taken and given back by each detect(). Throws
  // Error(invalid_argument) for a max_batch below 1.
  Detector(std::shared_ptr<const Model> model, const DetectorOptions& options);
  // On a device made elsewhere; the options' device, precision, threads and gpu do not count.
  Detector(std::shared_ptr<const Model> model, std::shared_ptr<Device> device, const DetectorOptions& options);

  ~Detector();

  // One result for each image, in their order; they may differ in size, format and place. Each is scaled as
  // it would be alone and lies at the top left of an input as large as the largest, with zeros around it;
  // what is found in one depends on the others only by what the padding does within the network's reach of
  // its padded edges (docs/numerics.md). Throws Error(invalid_argument), before anything has changed, for
  // more than max_batch images and for one that is empty, too large, has rows that overlap or is not on the
  // device that it is said to be on; Error(bad_model) for a backbone model, unless want_tensors is set;
  // Error(numeric) naming the first value with a NaN or infinity. Where there are several images, messages
  // name the one at fault, counted from 0. After the first batch of a number and size, nothing but the result
  // is allocated, as long as the originals fit their room.
  std::vector<DetectResult> detect(std::span<const ImageView> images, const DetectRequest& request = {});
  // A batch of one.
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
  SessionStats stats() const;  // the session's, with the room for originals

 private:
  struct Batch;
  std::unique_lock<std::mutex> enter(const DetectRequest& request);
  void scale(std::span<const ImageView> images);
  std::vector<DetectResult> infer(const DetectRequest& request);
  void feed(Executable& executable, const DetectRequest& request) const;
  void read_detections(const Executable& executable, std::size_t n, bool want_proposals, DetectResult& result);
  std::shared_ptr<const Model> model_;
  std::int64_t max_image_pixels_;
  std::size_t max_batch_;
  std::unique_ptr<Batch> batch_;               // the one at hand
  std::vector<float> scratch_;                 // detections on their way to the result
  Session session_;
  PixelRoom room_;
  MapSizes map_sizes_;
};

}  // namespace frcnn
