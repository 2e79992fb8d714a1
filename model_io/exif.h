// The one EXIF field that changes pixels: the orientation.
#pragma once

#include <cstdint>
#include <span>

namespace frcnn {

// The orientation (1..8, EXIF 2.3 tag 0x0112) of a JPEG's first Exif segment or a PNG's eXIf chunk; 1 when there is
// none, or when what is there is damaged: as viewers do, a bad tag never makes an image unreadable.
int exif_orientation(std::span<const std::uint8_t> file);

}  // namespace frcnn
