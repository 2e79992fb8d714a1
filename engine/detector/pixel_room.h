// The originals' pixels on their way to a device.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "detector/image_view.h"
#include "runtime/device.h"
#include "runtime/weights.h"

namespace frcnn {

// Room on the device for the pixels of one batch, and as much page-locked memory of the host that they pass
// through. It is beside the arena: programs find pixels by the addresses in their SourceImages, so that
// neither their plans nor what a device captures of them depend on the originals. On the host there is
// nothing to move, and pixels are read where the caller has them.
class PixelRoom {
 public:
  // Takes `bytes` of the device's memory and of the host's. Throws Error(out_of_memory).
  PixelRoom(const Weights& weights, Device& device, std::size_t bytes);

  // Fills in where each image's pixels are going to lie, and copies those of the host to where upload() takes
  // them from. Throws Error(out_of_memory); Error(invalid_argument) for pixels said to be on the device that
  // are not, naming the image where there are several. A batch larger than the room gets memory of its own
  // until release().
  void place(std::span<const ImageView> images, std::span<SourceImage> sources);
  // Queued in order with the kernels. place() is called again only when the device has been waited for.
  void upload();
  void release();
  std::size_t bytes() const { return device_.is_host() ? 0 : bytes_; }  // taken for good, on either side

 private:
  void check_on_device(std::span<const ImageView> images, std::size_t n) const;
  const Weights& weights_;
  Device& device_;
  std::size_t bytes_;
  struct Memory {
    std::shared_ptr<void> device, host;
  };
  Memory take(std::size_t bytes) const;
  const Memory& at_hand() const { return larger_.device ? larger_ : memory_; }
  Memory memory_, larger_;
  std::size_t packed_ = 0;  // bytes of the batch at hand
};

}  // namespace frcnn
