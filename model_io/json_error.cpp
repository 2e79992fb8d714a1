#include "model_io/json_error.h"

#include <algorithm>

namespace frcnn {

std::string json_problem(const nlohmann::json::exception& error, std::string_view text) {
  const auto* parse = dynamic_cast<const nlohmann::json::parse_error*>(&error);
  if (!parse) return "a number in it is too large for any type";  // all that the parser reports besides
  if (parse->byte > text.size())
    return "the text ends too early, after " + std::to_string(text.size()) + " bytes";
  const std::size_t at = std::max<std::size_t>(parse->byte, 1) - 1;
  const std::string_view before = text.substr(0, at);
  const auto lines = std::count(before.begin(), before.end(), '\n');
  const std::size_t line_begin = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return "line " + std::to_string(lines + 1) + ", column " + std::to_string(at - line_begin + 1) + " (byte " +
         std::to_string(at + 1) + "): not JSON from here on";
}

}  // namespace frcnn
