// A check that stb_image lacks.
#pragma once

#include <cstdint>
#include <span>

namespace frcnn {

// True when every Huffman table that a decoder meets in this JPEG has at most 256 codes, as the standard demands
// (ITU-T T.81, B.2.4.2). stb_image 2.27 writes past its arrays for a table that has more; a file that is not a JPEG is
// true as well. Walks the markers as the decoder does, so that no table can hide from it.
bool jpeg_tables_fit(std::span<const std::uint8_t> file);

}  // namespace frcnn
