#include "detector/pixel_room.h"

#include <fmt/format.h>

#include "frcnn/error.h"

namespace frcnn {
namespace {

std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

PixelRoom::PixelRoom(const Weights& weights, Device& device, std::size_t bytes)
    : weights_(weights), device_(device), bytes_(bytes) {
  if (!device_.is_host()) memory_ = take(bytes_);
}

PixelRoom::Memory PixelRoom::take(std::size_t bytes) const {
  return {weights_.allocate(device_, bytes), device_.allocate_host(bytes)};
}

void PixelRoom::check_on_device(std::span<const ImageView> images, std::size_t n) const {
  for (const Plane& plane : planes_of(images[n])) {
    if (plane.rows == 0 || device_.holds(plane.lowest(), plane.extent())) continue;
    const std::string which = name_of_image(n, images.size());
    throw Error(ErrorCode::invalid_argument,
                device_.is_host()
                    ? fmt::format("{}its pixels are said to be on a device, this detector computes on {}",
                                  which, device_.name())
                    : fmt::format("{}its pixels are said to be on {}, {} bytes at {} are not", which,
                                  device_.name(), plane.extent(), static_cast<const void*>(plane.lowest())));
  }
}

void PixelRoom::place(std::span<const ImageView> images, std::span<SourceImage> sources) {
  std::size_t room = 0;  // the same for the same images in any order
  for (std::size_t n = 0; n < images.size(); ++n) {
    if (images[n].memory == PixelMemory::device) {
      check_on_device(images, n);
    } else if (!device_.is_host()) {
      room += aligned(packed_bytes(images[n]));
    }
  }
  if (room > bytes_) larger_ = take(room);
  const auto on_device = reinterpret_cast<std::uintptr_t>(at_hand().device.get());
  packed_ = 0;
  for (std::size_t n = 0; n < images.size(); ++n) {
    if (device_.is_host() || images[n].memory == PixelMemory::device) {
      describe_in_place(images[n], sources[n]);
      continue;
    }
    const std::size_t at = aligned(packed_);
    pack(images[n], static_cast<std::uint8_t*>(at_hand().host.get()) + at);
    describe_packed(images[n], on_device + at, sources[n]);
    packed_ = at + packed_bytes(images[n]);
  }
}

void PixelRoom::upload() {
  if (packed_ > 0) device_.queue_upload(at_hand().device.get(), at_hand().host.get(), packed_);
}

void PixelRoom::release() { larger_ = {}; }

}  // namespace frcnn
