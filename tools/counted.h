// Numbers with their nouns: "1 image", "2 images".
#pragma once

#include <fmt/format.h>

#include <string>

namespace frcnn {

template <typename Number>
std::string counted(Number count, const char* thing) {
  return fmt::format("{} {}{}", count, thing, count == 1 ? "" : "s");
}

}  // namespace frcnn
