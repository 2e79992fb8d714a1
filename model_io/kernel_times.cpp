#include "model_io/kernel_times.h"

#include <fmt/format.h>

#include "frcnn/error.h"
#include "model_io/json_values.h"

namespace frcnn {
namespace {

using json_values::Json;
using json_values::Problem;

constexpr const char* format_name = "frcnn kernel times";
constexpr int format_version = 1;
constexpr double longest_ms = 1e9;

const Json& member(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) throw Problem{fmt::format("lacks \"{}\"", key)};
  return *found;
}

const Json& object(const Json& value) {
  if (!value.is_object()) throw Problem{"must be an object, it is " + json_values::show(value)};
  return value;
}

KernelTimes kernel_times(const Json& value) {
  object(value);
  KernelTimes times;
  times.ours = json_values::text(member(value, "ours"));
  times.library = json_values::text(member(value, "library"));
  times.ours_ms = json_values::number(member(value, "ours_ms"), 0, longest_ms);
  const Json& library = member(value, "library_ms");
  if (!library.is_null()) times.library_ms = json_values::number(library, 0, longest_ms);
  return times;
}

}  // namespace

MachineTimes kernel_times_from_json(const std::string& text, const std::string& name) {
  const Json json = json_values::parse_strictly(text, name);
  std::string where = "the file";
  try {
    object(json);
    if (member(json, "format") != format_name) throw Problem{fmt::format("is not of the format \"{}\"", format_name)};
    const auto version = json_values::integer(member(json, "version"), 1, 1 << 20);
    if (version != format_version)
      throw Problem{fmt::format("has version {}, this program knows {}", version, format_version)};
    MachineTimes times;
    for (const auto& [machine, layers] : object(member(json, "machines")).items()) {
      where = machine;
      for (const auto& [layer, entry] : object(layers).items()) {
        where = fmt::format("{}: {}", machine, layer);
        times[machine][layer] = kernel_times(entry);
      }
    }
    return times;
  } catch (const Problem& problem) {
    throw Error(ErrorCode::bad_file, fmt::format("{}: {} {}; remove the file, and it will be measured anew", name, where,
                                                 problem.what));
  }
}

std::string kernel_times_to_json(const MachineTimes& times) {
  Json machines = Json::object();
  for (const auto& [machine, layers] : times) {
    Json& one = machines[machine] = Json::object();
    for (const auto& [layer, t] : layers)
      one[layer] = {{"ours", t.ours},
                    {"ours_ms", t.ours_ms},
                    {"library", t.library},
                    {"library_ms", t.library_ms ? Json(*t.library_ms) : Json(nullptr)}};
  }
  const Json json{{"format", format_name}, {"version", format_version}, {"machines", machines}};
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace frcnn
