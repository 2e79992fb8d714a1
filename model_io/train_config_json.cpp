#include "model_io/train_config_json.h"

#include <cmath>
#include <functional>
#include <optional>
#include <string_view>

#include "frcnn/error.h"
#include "model_io/json_values.h"
#include "model_io/model_file.h"
#include "model_io/safetensors.h"

namespace frcnn {
namespace {

using namespace json_values;

constexpr int format_version = 1;
constexpr std::int64_t many = 1'000'000'000;
constexpr const char* convention_prefix = "model.set.";

constexpr Word<BadBoxes> bad_box_words[] = {
    {BadBoxes::drop, "drop"}, {BadBoxes::repair, "repair"}, {BadBoxes::error, "error"}};
constexpr Word<BrokenImages> broken_words[] = {{BrokenImages::fatal, "fatal"}, {BrokenImages::skip, "skip"}};
constexpr Word<UnknownClasses> unknown_words[] = {{UnknownClasses::error, "error"},
                                                  {UnknownClasses::ignore, "ignore"}};
constexpr Word<Filler> filler_words[] = {{Filler::gaussian, "gaussian"}, {Filler::he, "he"}};
constexpr Word<PositiveAnchors> positive_words[] = {{PositiveAnchors::always, "always"},
                                                    {PositiveAnchors::fallback, "fallback"}};
constexpr Word<UntouchedBoxes> untouched_words[] = {{UntouchedBoxes::ignore, "ignore"},
                                                    {UntouchedBoxes::release, "release"}};
constexpr Word<LossNorm> norm_words[] = {{LossNorm::caffe, "caffe"}, {LossNorm::paper, "paper"}};
constexpr Word<LrPolicy> policy_words[] = {{LrPolicy::step, "step"}, {LrPolicy::cosine, "cosine"}};

std::vector<std::string> names(const Json& value) {
  std::vector<std::string> list;
  for (const Json& item : array(value, 0, 4096)) list.push_back(text(item));
  return list;
}

std::vector<std::int64_t> integers(const Json& value, std::int64_t low, std::int64_t high) {
  std::vector<std::int64_t> list;
  for (const Json& item : array(value, 0, 4096)) list.push_back(integer(item, low, high));
  return list;
}

std::vector<std::int64_t> ascending(const Json& value) {
  std::vector<std::int64_t> list = integers(value, 1, many);
  for (std::size_t i = 1; i < list.size(); ++i)
    if (list[i] <= list[i - 1]) throw Problem{"must ascend, it is " + show(value)};
  return list;
}

template <std::size_t N>
std::array<double, N> numbers(const Json& value, double low, double high) {
  std::array<double, N> list{};
  for (std::size_t i = 0; i < N; ++i) list[i] = number(array(value, N, N)[i], low, high);
  return list;
}

std::array<double, 4> all_positive(const Json& value) {
  std::array<double, 4> list{};
  for (std::size_t i = 0; i < 4; ++i) list[i] = positive(array(value, 4, 4)[i]);
  return list;
}

double power_of_two(const Json& value) {
  const double x = positive(value);
  int exponent = 0;
  if (std::frexp(x, &exponent) != 0.5) throw Problem{"must be a power of two, it is " + show(value)};
  return x;
}

// A convention's value as set_config wants it: lists with commas.
std::string convention(const Json& value) {
  if (value.is_string()) return text(value, 0);
  if (value.is_number() || value.is_boolean()) return show(value);
  if (!value.is_array())
    throw Problem{"must hold texts, numbers, true, false and lists of them, it holds " + show(value)};
  std::string list;
  for (const Json& item : array(value, 1, 64)) list += (list.empty() ? "" : ",") + convention(item);
  return list;
}

std::map<std::string, std::string> conventions(const Json& value) {
  if (!value.is_object()) throw Problem{"must be an object, it is " + show(value)};
  std::map<std::string, std::string> set;
  for (const auto& [key, one] : value.items()) set[key] = convention(one);
  return set;
}

struct Field {
  const char* path;
  std::function<Json(const RunConfig&)> get;
  std::function<void(RunConfig&, const Json&)> set;  // throws Problem
};

#define FRCNN_FIELD(path, member, decoded)                      \
  Field {                                                       \
    path, [](const RunConfig& c) -> Json { return c.member; },  \
        [](RunConfig& c, const Json& v) { c.member = decoded; } \
  }
#define FRCNN_WORD(path, member, words)                                     \
  Field {                                                                   \
    path, [](const RunConfig& c) -> Json { return word(words, c.member); }, \
        [](RunConfig& c, const Json& v) { c.member = from_word(words, v); } \
  }

const std::vector<Field>& fields() {
  static const std::vector<Field> table{
      FRCNN_FIELD("preset", train.preset, text(v)),
      FRCNN_FIELD("model.arch", model.arch, text(v)),
      FRCNN_FIELD("model.conv_widths", model.conv_widths, integers(v, 1, 65536)),
      FRCNN_FIELD("model.rpn_width", model.rpn_width, integer(v, 0, 65536)),
      FRCNN_FIELD("model.fc6_width", model.fc6_width, integer(v, 0, 65536)),
      FRCNN_FIELD("model.fc7_width", model.fc7_width, integer(v, 0, 65536)),
      Field{"model.set",
            [](const RunConfig& c) -> Json {
              Json json = Json::object();
              for (const auto& [key, value] : c.model.set) json[key] = value;
              return json;
            },
            [](RunConfig& c, const Json& v) {
              for (auto& [key, value] : conventions(v)) c.model.set[key] = value;
            }},
      FRCNN_FIELD("data.use_difficult", data.use_difficult, flag(v)),
      FRCNN_FIELD("data.use_images_without_objects", data.use_images_without_objects, flag(v)),
      FRCNN_FIELD("data.min_box_side", data.min_box_side, number(v, 1, no_bound)),
      FRCNN_WORD("data.bad_boxes", data.bad_boxes, bad_box_words),
      FRCNN_WORD("data.broken_images", data.broken_images, broken_words),
      FRCNN_WORD("data.unknown_classes", data.unknown_classes, unknown_words),
      FRCNN_FIELD("iterations", train.iterations, integer(v, 1, many)),
      FRCNN_FIELD("seed", train.seed, static_cast<std::uint64_t>(integer(v, 0, (std::int64_t{1} << 53) - 1))),
      FRCNN_FIELD("frozen", train.frozen, names(v)),
      FRCNN_FIELD("dropout", train.dropout, number(v, 0, 0.99)),
      FRCNN_FIELD("dropout_scales_in_training", train.dropout_scales_in_training, flag(v)),
      FRCNN_WORD("filler", train.filler, filler_words),
      FRCNN_FIELD("rpn_filler_std", train.rpn_filler_std, positive(v)),
      FRCNN_FIELD("cls_filler_std", train.cls_filler_std, positive(v)),
      FRCNN_FIELD("bbox_filler_std", train.bbox_filler_std, positive(v)),
      FRCNN_FIELD("rpn.positive_iou", train.rpn.positive_iou, number(v, 0, 1)),
      FRCNN_FIELD("rpn.negative_iou", train.rpn.negative_iou, number(v, 0, 1)),
      FRCNN_FIELD("rpn.batch", train.rpn.batch, integer(v, 1, 1'000'000)),
      FRCNN_FIELD("rpn.positive_fraction", train.rpn.positive_fraction, number(v, 0, 1)),
      FRCNN_FIELD("rpn.allowed_border", train.rpn.allowed_border, number(v, -no_bound, no_bound)),
      FRCNN_WORD("rpn.positives", train.rpn.positives, positive_words),
      FRCNN_WORD("rpn.untouched", train.rpn.untouched, untouched_words),
      FRCNN_FIELD("roi.batch", train.roi.batch, integer(v, 1, 1'000'000)),
      FRCNN_FIELD("roi.foreground_fraction", train.roi.foreground_fraction, number(v, 0, 1)),
      FRCNN_FIELD("roi.foreground_iou", train.roi.foreground_iou, number(v, 0, 1)),
      FRCNN_FIELD("roi.background_iou_high", train.roi.background_iou_high, number(v, 0, 1)),
      FRCNN_FIELD("roi.background_iou_low", train.roi.background_iou_low, number(v, 0, 1)),
      FRCNN_FIELD("roi.means", train.roi.means, numbers<4>(v, -no_bound, no_bound)),
      FRCNN_FIELD("roi.stds", train.roi.stds, all_positive(v)),
      FRCNN_FIELD("proposals.pre_nms_top_n", train.proposals.pre_nms_top_n, integer(v, -1, many)),
      FRCNN_FIELD("proposals.post_nms_top_n", train.proposals.post_nms_top_n, integer(v, 1, 1'000'000)),
      FRCNN_FIELD("proposals.nms", train.proposals.nms, number(v, 0, 1)),
      FRCNN_WORD("loss.norm", train.loss.norm, norm_words),
      FRCNN_FIELD("loss.rpn_lambda", train.loss.rpn_lambda, number(v, 0, no_bound)),
      FRCNN_FIELD("loss.rpn_sigma", train.loss.rpn_sigma, positive(v)),
      FRCNN_FIELD("loss.head_sigma", train.loss.head_sigma, positive(v)),
      FRCNN_FIELD("solver.base_lr", train.solver.base_lr, positive(v)),
      FRCNN_FIELD("solver.momentum", train.solver.momentum, number(v, 0, 0.999999)),
      FRCNN_FIELD("solver.weight_decay", train.solver.weight_decay, number(v, 0, 1)),
      FRCNN_FIELD("solver.bias_lr_mult", train.solver.bias_lr_mult, number(v, 0, 1000)),
      FRCNN_FIELD("solver.decay_biases", train.solver.decay_biases, flag(v)),
      FRCNN_FIELD("solver.iter_size", train.solver.iter_size, integer(v, 1, 65536)),
      FRCNN_FIELD("solver.clip_norm", train.solver.clip_norm, number(v, 0, no_bound)),
      FRCNN_FIELD("solver.average_decay", train.solver.average_decay, number(v, 0, 0.9999999)),
      FRCNN_WORD("solver.policy", train.solver.policy, policy_words),
      FRCNN_FIELD("solver.lr_steps", train.solver.lr_steps, ascending(v)),
      FRCNN_FIELD("solver.gamma", train.solver.gamma, positive(v)),
      FRCNN_FIELD("solver.final_fraction", train.solver.final_fraction, number(v, 0, 1)),
      FRCNN_FIELD("solver.warmup", train.solver.warmup, integer(v, 0, many)),
      FRCNN_FIELD("augment.horizontal_flip", train.augment.horizontal_flip, flag(v)),
      FRCNN_FIELD("augment.vertical_flip", train.augment.vertical_flip, flag(v)),
      FRCNN_FIELD("augment.transpose", train.augment.transpose, flag(v)),
      FRCNN_FIELD("augment.colour_gain", train.augment.colour_gain, number(v, 0, 1)),
      FRCNN_FIELD("augment.colour_shift", train.augment.colour_shift, number(v, 0, 255)),
      FRCNN_FIELD("augment.aspect_grouping", train.augment.aspect_grouping, flag(v)),
      FRCNN_FIELD("units.measure_input_offset", train.units.measure_input_offset, flag(v)),
      FRCNN_FIELD("units.input_offset", train.units.input_offset, (numbers<3>(v, -255, 255))),
      FRCNN_FIELD("units.input_scale", train.units.input_scale, power_of_two(v)),
      FRCNN_FIELD("units.hidden", train.units.hidden, power_of_two(v)),
  };
  return table;
}
#undef FRCNN_FIELD
#undef FRCNN_WORD

const Field* find(const std::string& path) {
  for (const Field& field : fields())
    if (path == field.path) return &field;
  return nullptr;
}

std::vector<std::string> field_paths() {
  std::vector<std::string> paths;
  for (const Field& field : fields()) paths.emplace_back(field.path);
  return paths;
}

bool is_section(const std::string& path) {
  const std::string start = path + ".";
  for (const Field& field : fields())
    if (std::string_view(field.path).substr(0, start.size()) == start) return true;
  return false;
}

// A document being laid over a configuration; every complaint has its line.
class Overlay {
 public:
  Overlay(RunConfig& config, const std::string& json, const std::string& source)
      : config_(config),
        source_(source),
        document_(parse_strictly(json, source + ": the training configuration", &lines_)) {}

  void apply() {
    if (!document_.is_object())
      fail(ErrorCode::bad_file, 1, "the training configuration is not a JSON object");
    version();
    walk(document_, "");
  }

  int line(const std::string& path) const {
    const auto found = lines_.find(path);
    return found == lines_.end() ? 1 : found->second;
  }

 private:
  [[noreturn]] void fail(ErrorCode code, int line, const std::string& what) const {
    throw Error(code, source_ + ":" + std::to_string(line) + ": " + what);
  }

  void version() const {
    const auto found = document_.find("format_version");
    if (found == document_.end()) return;  // people write only what they change
    const int at = line("format_version");
    if (!found->is_number_integer() || found->get<double>() < 1)
      fail(ErrorCode::bad_file, at, "format_version must be a whole number from 1, it is " + show(*found));
    if (found->get<double>() > format_version)
      fail(ErrorCode::unsupported, at,
           "format_version " + show(*found) + " is newer than the " + std::to_string(format_version) +
               " that this program knows: use a newer frcnn");
  }

  void walk(const Json& object, const std::string& prefix) {
    for (const auto& [key, value] : object.items()) {
      const std::string path = prefix + key;
      if (path == "format_version") continue;
      if (const Field* field = find(path)) {
        try {
          field->set(config_, value);
        } catch (const Problem& problem) {
          fail(ErrorCode::bad_file, line(path), path + ": " + problem.what);
        }
        if (path == "model.set") check_conventions(value);
      } else if (is_section(path)) {
        if (!value.is_object())
          fail(ErrorCode::bad_file, line(path), path + ": must be an object, it is " + show(value));
        walk(value, path + ".");
      } else {
        fail(ErrorCode::bad_file, line(path),
             "unknown key " + printable(path) + suggestion(path, field_paths()));
      }
    }
  }

  // Where the detector is made nobody knows any more from which line they came.
  void check_conventions(const Json& object) const {
    for (const auto& [key, value] : object.items()) {
      try {
        ModelConfig any;
        set_convention(any, key, convention(value));
      } catch (const Error& error) {
        fail(ErrorCode::bad_file, line("model.set." + key), error.what());
      }
    }
  }

  RunConfig& config_;
  const std::string& source_;
  KeyLines lines_;
  Json document_;
};

// Ways to read what stands behind `key=`, the likeliest first.
std::vector<Json> readings(const std::string& value) {
  std::vector<Json> all;
  for (const std::string& form : {value, "[" + value + "]"}) {
    Json parsed = Json::parse(form, nullptr, false);
    if (!parsed.is_discarded()) all.push_back(std::move(parsed));
  }
  all.emplace_back(value);
  Json list = Json::array();
  for (std::size_t at = 0; at <= value.size();) {
    const std::size_t comma = std::min(value.find(',', at), value.size());
    list.push_back(value.substr(at, comma - at));
    at = comma + 1;
  }
  all.push_back(std::move(list));
  return all;
}

}  // namespace

std::string run_config_to_json(const RunConfig& config) {
  Json document{{"format_version", format_version}};
  for (const Field& field : fields()) {
    std::string_view path = field.path;
    Json* at = &document;
    for (std::size_t dot; (dot = path.find('.')) != std::string_view::npos; path.remove_prefix(dot + 1))
      at = &(*at)[std::string(path.substr(0, dot))];
    (*at)[std::string(path)] = field.get(config);
  }
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void overlay_run_config(RunConfig& config, const std::string& json, const std::string& source) {
  RunConfig changed = config;
  Overlay(changed, json, source).apply();
  config = std::move(changed);
}

RunConfigBase run_config_base(const std::string& json, const std::string& source) {
  RunConfig config;
  config.train.preset.clear();
  config.model.arch.clear();
  Overlay overlay(config, json, source);
  overlay.apply();
  return {config.train.preset, config.model.arch, overlay.line("preset")};
}

void set_convention(ModelConfig& config, const std::string& key, const std::string& value) {
  try {
    set_config(config, key, value);
  } catch (const Error& error) {  // "KEY: must be ...", or "there is no key ..."
    const std::string what = error.what();
    throw Error(error.code(), (what.rfind(key + ": ", 0) == 0 ? "model.set." : "model.set: ") + what);
  }
}

void check_together(const RunConfig& config) {
  const auto fail = [](const std::string& low, double low_value, const std::string& high, double high_value,
                       const std::string& why) {
    throw Error(ErrorCode::invalid_argument,
                low + " is " + show(low_value) + " and " + high + " " + show(high_value) + ": " + why);
  };
  const AnchorTargetConfig& rpn = config.train.rpn;
  if (rpn.negative_iou > rpn.positive_iou)
    fail("rpn.negative_iou", rpn.negative_iou, "rpn.positive_iou", rpn.positive_iou,
         "an anchor between them would be an object and background");
  const RoiTargetConfig& roi = config.train.roi;  // background_iou_high above foreground_iou: the object wins
  if (roi.background_iou_low >= roi.background_iou_high)
    fail("roi.background_iou_low", roi.background_iou_low, "roi.background_iou_high", roi.background_iou_high,
         "no RoI lies between them, so that there would be no background");
}

void set_run_config(RunConfig& config, const std::string& key, const std::string& value) {
  if (key.rfind(convention_prefix, 0) == 0) {
    config.model.set[key.substr(std::string_view(convention_prefix).size())] =
        value;  // new_detector checks it
    return;
  }
  if (key == "model.set")
    throw Error(ErrorCode::invalid_argument,
                "model.set: one convention at a time, e.g. --set model.set.short_side=800");
  const auto settable = [](std::string_view path) {
    return path != "preset" && path != "model.arch" && path != "model.set";
  };
  const Field* field = find(key);
  if (!field || !settable(key)) {  // other fields' defaults hang on a preset and an architecture
    std::string keys;
    std::vector<std::string> all;
    for (const Field& one : fields())
      if (settable(one.path)) {
        keys += (keys.empty() ? "" : ", ") + std::string(one.path);
        all.emplace_back(one.path);
      }
    throw Error(ErrorCode::invalid_argument, "there is no key " + printable(key) + " to set" +
                                                 suggestion(key, all) + "; the keys are " +
                                                 convention_prefix + "KEY, " + keys);
  }
  std::optional<Problem> first;
  for (const Json& reading : readings(value)) {
    try {
      RunConfig changed = config;
      field->set(changed, reading);
      config = std::move(changed);
      return;
    } catch (const Problem& problem) {
      if (!first) first = problem;
    }
  }
  throw Error(ErrorCode::invalid_argument, key + ": " + first->what);
}

std::vector<std::string> run_config_differences(const RunConfig& a, const RunConfig& b) {
  std::vector<std::string> lines;
  for (const Field& field : fields()) {
    const Json left = field.get(a), right = field.get(b);
    if (left != right)
      lines.push_back(std::string(field.path) + ": " + show(left) + " against " + show(right));
  }
  return lines;
}

}  // namespace frcnn
