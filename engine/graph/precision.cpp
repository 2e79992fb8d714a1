#include "graph/precision.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "frcnn/error.h"

namespace frcnn {

Precision parse_precision(std::string_view name) {
  const auto found = std::find(precision_names.begin(), precision_names.end(), name);
  if (found == precision_names.end())
    throw Error(ErrorCode::invalid_argument, fmt::format("precision {}: expected one of {}", name, fmt::join(precision_names, ", ")));
  return static_cast<Precision>(found - precision_names.begin());
}

}  // namespace frcnn
