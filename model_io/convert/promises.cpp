#include "model_io/convert/promises.h"

#include <fmt/format.h>

#include "model_io/safetensors.h"

namespace frcnn {

std::string broken_promises(const NetFacts& net, const TensorShapes& shapes) {
  std::string text;
  for (const PromisedSize& promised : net.sizes) {
    const auto found = shapes.find(promised.layer + ".weight");
    if (found == shapes.end() || found->second.empty()) continue;
    const auto& shape = found->second;
    const bool outputs = promised.outputs == 0 || promised.outputs == shape[0];
    const bool kernel = promised.kernel[0] == 0 || shape.size() != 4 ||
                        (promised.kernel[0] == shape[2] && promised.kernel[1] == shape[3]);
    if (outputs && kernel) continue;
    const std::string size = promised.kernel[0]
                                 ? fmt::format(" and a {}x{} kernel", promised.kernel[0], promised.kernel[1])
                                 : std::string();
    text += fmt::format("\n  {}: {} gives it {} outputs{}, its weights have {}", promised.layer, net.source,
                        promised.outputs, size, shape_string(shape));
  }
  return text;
}

std::string anchor_mismatch(const ModelConfig& config, const TensorShapes& shapes) {
  const auto scores = shapes.find("rpn_cls_score.weight");
  const std::size_t anchors = config.anchor_ratios.size() * config.anchor_scales.size();
  if (scores == shapes.end() || scores->second.empty() ||
      scores->second[0] == static_cast<std::int64_t>(2 * anchors))
    return {};
  return fmt::format(
      "\n  {} ratios x {} scales make {} anchors, rpn_cls_score has {} outputs for {} (anchor_scales, "
      "anchor_ratios)",
      config.anchor_ratios.size(), config.anchor_scales.size(), anchors, scores->second[0],
      static_cast<double>(scores->second[0]) / 2.0);
}

}  // namespace frcnn
