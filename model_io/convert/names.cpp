#include "model_io/convert/names.h"

#include <fmt/format.h>

#include <charconv>
#include <map>
#include <set>
#include <string_view>

#include "frcnn/error.h"

namespace frcnn {
namespace {

struct Layer {
  NameScheme scheme;
  std::string_view theirs, ours;
};

constexpr Layer layers[]{
    {NameScheme::torchvision, "classifier.0", "fc6"},
    {NameScheme::torchvision, "classifier.3", "fc7"},
    {NameScheme::torchvision, "classifier.6", "fc8"},
    {NameScheme::jwyang, "RCNN_rpn.RPN_Conv", "rpn_conv/3x3"},
    {NameScheme::jwyang, "RCNN_rpn.RPN_cls_score", "rpn_cls_score"},
    {NameScheme::jwyang, "RCNN_rpn.RPN_bbox_pred", "rpn_bbox_pred"},
    {NameScheme::jwyang, "RCNN_top.0", "fc6"},
    {NameScheme::jwyang, "RCNN_top.3", "fc7"},
    {NameScheme::jwyang, "RCNN_cls_score", "cls_score"},
    {NameScheme::jwyang, "RCNN_bbox_pred", "bbox_pred"},
};

struct Convolutions {
  NameScheme scheme;
  std::string_view prefix;  // before the number of the module
};

constexpr Convolutions convolutions[]{{NameScheme::torchvision, "features."},
                                      {NameScheme::jwyang, "RCNN_base."}};

// "features.10.weight" -> 10; nothing for other names.
std::optional<int> module_number(std::string_view tensor, std::string_view prefix) {
  if (!tensor.starts_with(prefix)) return std::nullopt;
  tensor.remove_prefix(prefix.size());
  int number = 0;
  const auto [end, error] = std::from_chars(tensor.data(), tensor.data() + tensor.size(), number);
  const std::string_view rest(end, static_cast<std::size_t>(tensor.data() + tensor.size() - end));
  if (error != std::errc() || number < 0 || (rest != ".weight" && rest != ".bias")) return std::nullopt;
  return number;
}

std::string_view ending(std::string_view tensor) {
  const auto dot = tensor.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : tensor.substr(dot);
}

// Layer names by module number: conv<group>_<place>.
std::map<int, std::string> convolution_names(const std::set<int>& modules, std::string_view prefix,
                                             const std::string& source) {
  std::map<int, std::string> names;
  const auto refuse = [&](const std::string& what) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: {}: the modules are not those of a plain VGG (convolution, ReLU, and pools between "
                    "groups)",
                    source, what));
  };
  int last = -2, group = 1, place = 0;
  for (const int number : modules) {
    if (last < 0 && number != 0) refuse(fmt::format("{}{} is the first", prefix, number));
    const int step = number - last;
    if (step == 3) {
      ++group;
      place = 0;
    } else if (step != 2) {
      refuse(fmt::format("{}{} follows {}{}", prefix, number, prefix, last));
    }
    names[number] = fmt::format("conv{}_{}", group, ++place);
    last = number;
  }
  return names;
}

}  // namespace

SchemeNames scheme_names(const std::vector<std::string>& tensors, const std::string& source) {
  SchemeNames out;
  std::string_view prefix;
  std::set<int> modules;
  for (const Convolutions& c : convolutions) {
    for (const std::string& tensor : tensors)
      if (const auto number = module_number(tensor, c.prefix)) modules.insert(*number);
    if (modules.empty()) continue;
    out.scheme = c.scheme;
    prefix = c.prefix;
    break;
  }
  if (modules.empty())  // a head alone, or Caffe's names
    for (const std::string& tensor : tensors)
      for (const Layer& layer : layers)
        if (tensor.starts_with(layer.theirs) && tensor.substr(layer.theirs.size()) == ending(tensor))
          out.scheme = layer.scheme;
  if (!prefix.empty())
    for (const std::string& tensor : tensors)
      if (tensor.starts_with(prefix) && ending(tensor) == ".running_mean")
        throw Error(
            ErrorCode::unsupported,
            fmt::format("{}: {}: networks with batch normalisation are not supported", source, tensor));

  const auto names = convolution_names(modules, prefix, source);
  for (const std::string& tensor : tensors) {
    TranslatedName named{tensor, tensor};
    if (out.scheme != NameScheme::caffe) {
      if (const auto number = prefix.empty() ? std::nullopt : module_number(tensor, prefix))
        named.name = names.at(*number) + std::string(ending(tensor));
      for (const Layer& layer : layers)
        if (layer.scheme == out.scheme && tensor.substr(0, tensor.rfind('.')) == layer.theirs)
          named.name = std::string(layer.ours) + std::string(ending(tensor));
    }
    out.tensors.push_back(std::move(named));
  }
  return out;
}

const char* program_of(NameScheme scheme) {
  switch (scheme) {
    case NameScheme::torchvision:
      return "torchvision's VGG";
    case NameScheme::jwyang:
      return "jwyang/faster-rcnn.pytorch";
    case NameScheme::caffe:
      break;
  }
  return "Caffe";
}

}  // namespace frcnn
