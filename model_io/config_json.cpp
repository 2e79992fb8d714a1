// ModelConfig as JSON and as `key=value`: one table of fields serves both.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "frcnn/error.h"
#include "model_io/json_values.h"
#include "model_io/model_file.h"

namespace frcnn {
namespace {

using namespace json_values;

constexpr int format_version = 1;

constexpr Word<ModelKind> kind_words[] = {{ModelKind::detector, "detector"},
                                          {ModelKind::backbone, "backbone"}};
constexpr Word<AnchorRule> anchor_words[] = {{AnchorRule::caffe, "caffe"}, {AnchorRule::paper, "paper"}};
constexpr Word<RoiOp> roi_words[] = {{RoiOp::pool, "pool"}, {RoiOp::align, "align"}};
constexpr Word<Suppress> suppress_words[] = {{Suppress::above, "above"},
                                             {Suppress::at_or_above, "at_or_above"}};
constexpr Word<Rounding> rounding_words[] = {{Rounding::ceil, "ceil"}, {Rounding::floor, "floor"}};
constexpr Word<LrnRegion> region_words[] = {{LrnRegion::within_channel, "within_channel"},
                                            {LrnRegion::across_channels, "across_channels"}};
using Layer = BackboneLayer;
constexpr Word<Layer::Kind> layer_words[] = {
    {Layer::Kind::conv, "conv"}, {Layer::Kind::lrn, "lrn"}, {Layer::Kind::max_pool, "max_pool"}};

// The shortest decimal that reads back as this float, so that 5e-5f is stored as 5e-5.
Json short_float(float value) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  double shortest = 0;
  std::from_chars(digits, end, shortest);
  return shortest;
}

// Calls set(key, value) for every member; all of `keys` must be there and nothing else.
template <typename Set>
void read_object(const Json& object, std::initializer_list<std::string_view> keys, const Set& set) {
  if (!object.is_object()) throw Problem{"must be an object, it is " + show(object)};
  for (const auto& [key, value] : object.items())
    if (std::find(keys.begin(), keys.end(), key) == keys.end())
      throw Problem{"has the unknown key " + printable(key)};
  for (const std::string_view key : keys) {
    const auto found = object.find(std::string(key));
    if (found == object.end()) throw Problem{"lacks the key '" + std::string(key) + "'"};
    try {
      set(key, *found);
    } catch (Problem& problem) {
      throw Problem{std::string(key) + ": " + problem.what};
    }
  }
}

Json layer_to_json(const Layer& layer) {
  Json json{{"kind", word(layer_words, layer.kind)}, {"name", layer.name}};
  switch (layer.kind) {
    case Layer::Kind::conv:
      json["stride"] = layer.stride;
      json["pad"] = layer.pad;
      json["relu"] = layer.relu;
      break;
    case Layer::Kind::lrn:
      json["region"] = word(region_words, layer.lrn.region);
      json["size"] = layer.lrn.size;
      json["alpha"] = short_float(layer.lrn.alpha);
      json["beta"] = short_float(layer.lrn.beta);
      json["k"] = short_float(layer.lrn.k);
      break;
    case Layer::Kind::max_pool:
      json["kernel"] = layer.pool.kernel;
      json["stride"] = layer.pool.stride;
      json["pad"] = layer.pool.pad;
      json["rounding"] = word(rounding_words, layer.pool.rounding);
      break;
  }
  return json;
}

Layer conv_from_json(const Json& json) {
  Layer layer;
  read_object(json, {"kind", "name", "stride", "pad", "relu"}, [&](std::string_view key, const Json& value) {
    if (key == "name") layer.name = text(value);
    if (key == "stride") layer.stride = small_integer(value, 1, 64);
    if (key == "pad") layer.pad = small_integer(value, 0, 64);
    if (key == "relu") layer.relu = flag(value);
  });
  return layer;
}

Layer lrn_from_json(const Json& json) {
  Layer layer;
  read_object(json, {"kind", "name", "region", "size", "alpha", "beta", "k"},
              [&](std::string_view key, const Json& value) {
                if (key == "name") layer.name = text(value);
                if (key == "region") layer.lrn.region = from_word(region_words, value);
                if (key == "size") layer.lrn.size = small_integer(value, 1, 63);
                if (key == "alpha") layer.lrn.alpha = static_cast<float>(number(value, 0, no_bound));
                if (key == "beta") layer.lrn.beta = static_cast<float>(number(value, 0, 100));
                if (key == "k") layer.lrn.k = static_cast<float>(number(value, 0, no_bound));
                if (key == "size" && layer.lrn.size % 2 == 0)
                  throw Problem{"must be odd, it is " + show(value)};
              });
  return layer;
}

Layer pool_from_json(const Json& json) {
  Layer layer;
  read_object(json, {"kind", "name", "kernel", "stride", "pad", "rounding"},
              [&](std::string_view key, const Json& value) {
                if (key == "name") layer.name = text(value);
                if (key == "kernel") layer.pool.kernel = small_integer(value, 1, 64);
                if (key == "stride") layer.pool.stride = small_integer(value, 1, 64);
                if (key == "pad") layer.pool.pad = small_integer(value, 0, 63);
                if (key == "rounding") layer.pool.rounding = from_word(rounding_words, value);
              });
  if (layer.pool.pad >= layer.pool.kernel)
    throw Problem{"pad " + std::to_string(layer.pool.pad) + " must be below the kernel " +
                  std::to_string(layer.pool.kernel)};
  return layer;
}

Layer layer_from_json(const Json& json) {
  if (!json.is_object() || !json.contains("kind")) throw Problem{"lacks the key 'kind'"};
  const Layer::Kind kind = from_word(layer_words, json["kind"]);
  Layer layer = kind == Layer::Kind::conv  ? conv_from_json(json)
                : kind == Layer::Kind::lrn ? lrn_from_json(json)
                                           : pool_from_json(json);
  layer.kind = kind;
  return layer;
}

std::vector<Layer> backbone_from_json(const Json& json) {
  std::vector<Layer> layers;
  for (const Json& item : array(json, 1, 4096)) {
    try {
      layers.push_back(layer_from_json(item));
    } catch (Problem& problem) {
      throw Problem{"layer " + std::to_string(layers.size()) + ": " + problem.what};
    }
  }
  return layers;
}

Json backbone_to_json(const std::vector<Layer>& layers) {
  Json json = Json::array();
  for (const Layer& layer : layers) json.push_back(layer_to_json(layer));
  return json;
}

std::vector<std::string> classes_from_json(const Json& json) {
  std::vector<std::string> classes;
  std::set<std::string> seen;
  for (const Json& item : array(json, 0, 65536)) {
    classes.push_back(text(item));
    if (!seen.insert(classes.back()).second)
      throw Problem{"must not have " + printable(classes.back()) + " twice"};
  }
  return classes;
}

LayerNames names_from_json(const Json& json) {
  LayerNames names;
  read_object(json, {"rpn_conv", "rpn_top", "roi_pool"}, [&](std::string_view key, const Json& value) {
    (key == "rpn_conv" ? names.rpn_conv : key == "rpn_top" ? names.rpn_top : names.roi_pool) = text(value);
  });
  return names;
}

// How `--set` writes a field's value; `none` for what only a file can say.
enum class Form { none, number, flag, word, numbers, classes };

struct Field {
  const char* key;
  Form form;
  std::function<Json(const ModelConfig&)> get;         // empty: no key of its own in the JSON
  std::function<void(ModelConfig&, const Json&)> set;  // throws Problem
};

#define FRCNN_FIELD(member, form, encoded, decoded)                                                         \
  Field {                                                                                                   \
#member, Form::form,                                                                                    \
        [](const ModelConfig& c)                                                                            \
             -> Json { return encoded(c.member); },                                                         \
                                                 [](ModelConfig & c, const Json& v) { c.member = decoded; } \
  }

// In the order of ModelConfig, which is the order in the file.
const std::vector<Field>& fields() {
  static const std::vector<Field> table{
      FRCNN_FIELD(
          kind, none, [](auto v) { return word(kind_words, v); }, from_word(kind_words, v)),
      FRCNN_FIELD(name, word, , text(v, 0)),
      FRCNN_FIELD(backbone, none, backbone_to_json, backbone_from_json(v)),
      Field{"names", Form::none,
            [](const ModelConfig& c) {
              return Json{{"rpn_conv", c.names.rpn_conv},
                          {"rpn_top", c.names.rpn_top},
                          {"roi_pool", c.names.roi_pool}};
            },
            [](ModelConfig& c, const Json& v) { c.names = names_from_json(v); }},
      FRCNN_FIELD(classes, classes, , classes_from_json(v)),
      Field{"pixel_mean", Form::numbers, [](const ModelConfig& c) -> Json { return c.pixel_mean; },
            [](ModelConfig& c, const Json& v) {
              std::array<double, 3> mean{};
              for (std::size_t i = 0; i < 3; ++i) mean[i] = number(array(v, 3, 3)[i], 0, 255);
              c.pixel_mean = mean;
            }},
      FRCNN_FIELD(short_side, number, , small_integer(v, 1, 32768)),
      FRCNN_FIELD(long_side, number, , small_integer(v, 1, 32768)),
      FRCNN_FIELD(feat_stride, number, , positive(v)),
      FRCNN_FIELD(
          anchor_rule, word, [](auto v) { return word(anchor_words, v); }, from_word(anchor_words, v)),
      FRCNN_FIELD(anchor_base_size, number, , positive(v)),
      FRCNN_FIELD(anchor_ratios, numbers, , positives(v)),
      FRCNN_FIELD(anchor_scales, numbers, , positives(v)),
      FRCNN_FIELD(rpn_min_size, number, , number(v, 0, no_bound)),
      FRCNN_FIELD(pre_nms_top_n, number, , integer(v, -1, 1'000'000'000)),
      FRCNN_FIELD(post_nms_top_n, number, , integer(v, -1, 1'000'000)),
      FRCNN_FIELD(rpn_nms, number, , number(v, 0, 1)),
      FRCNN_FIELD(
          suppress, word, [](auto v) { return word(suppress_words, v); }, from_word(suppress_words, v)),
      FRCNN_FIELD(
          roi_op, word, [](auto v) { return word(roi_words, v); }, from_word(roi_words, v)),
      FRCNN_FIELD(pooled_h, number, , small_integer(v, 1, 256)),
      FRCNN_FIELD(pooled_w, number, , small_integer(v, 1, 256)),
      FRCNN_FIELD(spatial_scale, number, , positive(v)),
      FRCNN_FIELD(roi_sampling_ratio, number, , small_integer(v, 0, 64)),
      FRCNN_FIELD(roi_aligned, flag, , flag(v)),
      FRCNN_FIELD(dropout_test_scale, number, , positive(v)),
      FRCNN_FIELD(score_threshold, number, , number(v, 0, 1)),
      FRCNN_FIELD(nms, number, , number(v, 0, 1)),
      FRCNN_FIELD(max_detections, number, , integer(v, -1, 1'000'000'000)),
      FRCNN_FIELD(keep_ties, flag, , flag(v)),
      // Short cuts of --set.
      Field{"pool_rounding",
            Form::word,
            {},
            [](ModelConfig& c, const Json& v) {
              const Rounding rounding = from_word(rounding_words, v);
              for (Layer& layer : c.backbone) layer.pool.rounding = rounding;
            }},
      Field{"rpn_conv", Form::word, {}, [](ModelConfig& c, const Json& v) { c.names.rpn_conv = text(v); }},
      Field{"rpn_top", Form::word, {}, [](ModelConfig& c, const Json& v) { c.names.rpn_top = text(v); }},
      Field{"roi_pool", Form::word, {}, [](ModelConfig& c, const Json& v) { c.names.roi_pool = text(v); }},
  };
  return table;
}
#undef FRCNN_FIELD

// What no field can see alone.
void check_together(const ModelConfig& config) {
  std::set<std::string> layers;
  bool has_conv = false;
  for (const Layer& layer : config.backbone) {
    if (!layers.insert(layer.name).second)
      throw Problem{"backbone: has two layers named " + printable(layer.name)};
    has_conv = has_conv || layer.kind == Layer::Kind::conv;
  }
  if (!has_conv) throw Problem{"backbone: has no convolution"};
  for (const char* taken : {"rpn_cls_score", "rpn_bbox_pred", "fc6", "fc7", "cls_score", "bbox_pred"})
    if (!layers.insert(taken).second)
      throw Problem{"backbone: no layer can be named '" + std::string(taken) + "'"};
  if (config.kind == ModelKind::backbone) return;
  if (!layers.insert(config.names.rpn_conv).second)
    throw Problem{"names: rpn_conv: another layer is named " + printable(config.names.rpn_conv)};
  if (config.classes.size() < 2)
    throw Problem{"classes: must hold the background and at least one more, it holds " +
                  std::to_string(config.classes.size())};
}

void check_version(const Json& document, const std::string& source) {
  const auto fail = [&](ErrorCode code, const std::string& what) {
    throw Error(code, source + ": the model configuration " + what);
  };
  if (!document.is_object()) fail(ErrorCode::bad_file, "is not a JSON object");
  const auto version = document.find("format_version");
  if (version == document.end()) fail(ErrorCode::bad_file, "lacks the key 'format_version'");
  if (!version->is_number_integer() || version->get<double>() < 1)
    fail(ErrorCode::bad_file,
         "has the format_version " + show(*version) + ", expected a whole number from 1");
  if (version->get<double>() > format_version)
    fail(ErrorCode::unsupported, "has format_version " + show(*version) + ", newer than the " +
                                     std::to_string(format_version) +
                                     " that this program knows: use a newer frcnn");
}

std::string trimmed(std::string_view value) {
  const auto first = value.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return std::string(value.substr(first, value.find_last_not_of(" \t\r\n") - first + 1));
}

Json number_from_text(const std::string& value) {
  const char* const end = value.data() + value.size();
  std::int64_t whole = 0;
  if (const auto [at, error] = std::from_chars(value.data(), end, whole); error == std::errc() && at == end)
    return whole;
  double real = 0;
  const auto [at, error] = std::from_chars(value.data(), end, real);
  if (error != std::errc() || at != end || !std::isfinite(real))
    throw Problem{"must be a number, it is " + printable(value)};
  return real;
}

std::vector<std::string> split(const std::string& value) {
  std::vector<std::string> items;
  for (std::size_t at = 0;;) {
    const std::size_t comma = value.find(',', at);
    items.push_back(
        trimmed(std::string_view(value).substr(at, comma == std::string::npos ? comma : comma - at)));
    if (comma == std::string::npos) return items;
    at = comma + 1;
  }
}

Json value_from_text(Form form, const std::string& value) {
  Json list = Json::array();
  switch (form) {
    case Form::number:
      return number_from_text(trimmed(value));
    case Form::word:
      return trimmed(value);
    case Form::flag:
      if (value == "true" || value == "1" || value == "yes" || value == "on") return true;
      if (value == "false" || value == "0" || value == "no" || value == "off") return false;
      throw Problem{"must be true or false, it is " + printable(value)};
    case Form::numbers:
      for (const std::string& item : split(value)) list.push_back(number_from_text(item));
      return list;
    case Form::classes: {
      const std::vector<std::string> names = split(value);
      if (names.front() != "__background__" && names.front() != "background")
        list.push_back("__background__");
      for (const std::string& name : names) list.push_back(name);
      return list;
    }
    case Form::none:
      break;
  }
  throw Problem{"cannot be set"};
}

}  // namespace

std::string config_to_json(const ModelConfig& config) {
  Json document{{"format_version", format_version}};
  const char* key = "";
  try {
    for (const Field& field : fields()) {
      if (!field.get) continue;
      key = field.key;
      document[key] = field.get(config);
    }
    return document.dump();
  } catch (const Problem& problem) {
    throw Error(ErrorCode::bad_model, "model configuration: " + std::string(key) + ": " + problem.what);
  } catch (const Json::exception&) {
    throw Error(ErrorCode::bad_model, "model configuration: a name is not UTF-8");
  }
}

ModelConfig config_from_json(const std::string& json, const std::string& source) {
  const Json document = parse_strictly(json, source + ": the model configuration", nullptr);
  check_version(document, source);
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::bad_model, source + ": model configuration: " + what);
  };
  for (const auto& [key, value] : document.items()) {
    const auto known = [name = key](const Field& field) { return field.get && field.key == name; };
    if (key != "format_version" && std::none_of(fields().begin(), fields().end(), known))
      fail("unknown key " + printable(key));
  }
  ModelConfig config;
  for (const Field& field : fields()) {
    if (!field.get) continue;
    const auto found = document.find(field.key);
    if (found == document.end()) fail("the key '" + std::string(field.key) + "' is missing");
    try {
      field.set(config, *found);
    } catch (const Problem& problem) {
      fail(std::string(field.key) + ": " + problem.what);
    }
  }
  try {
    check_together(config);
  } catch (const Problem& problem) {
    fail(problem.what);
  }
  return config;
}

void set_config(ModelConfig& config, const std::string& key, const std::string& value) {
  std::string keys;
  std::vector<std::string> all;
  for (const Field& field : fields()) {
    if (field.form == Form::none) continue;
    keys += (keys.empty() ? "" : ", ") + std::string(field.key);
    all.emplace_back(field.key);
    if (key != field.key) continue;
    try {
      return field.set(config, value_from_text(field.form, value));
    } catch (const Problem& problem) {
      throw Error(ErrorCode::invalid_argument, key + ": " + problem.what);
    }
  }
  throw Error(ErrorCode::invalid_argument, "there is no key " + printable(key) + " to set" +
                                               suggestion(key, all) + "; the keys are " + keys);
}

}  // namespace frcnn
