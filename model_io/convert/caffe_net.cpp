#include "model_io/convert/caffe_net.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

#include "frcnn/error.h"
#include "model_io/convert/param_str.h"

namespace frcnn {
namespace {

class Reader {
 public:
  Reader(const CaffeNet& net, const std::string& source) : source_(source) {
    facts_.source = source;
    facts_.name = net.name;
    inputs_ = net.inputs;
    drop_splits(net);
  }

  NetFacts read() {
    parameters();
    const CaffeLayer* scores = find("rpn_cls_score");
    facts_.detector = scores || find("rpn_bbox_pred") || find("cls_score") || find("bbox_pred");
    if (scores) {
      rpn(*scores);
    } else {
      pretrained();
    }
    anchors();
    roi_pooling();
    head();
    return std::move(facts_);
  }

 private:
  struct Place {  // a blob as layer number `before` would read it
    std::string blob;
    std::size_t before;
  };

  // Snapshots hold the Split layers that Caffe inserts where a blob has several readers: plain aliases.
  void drop_splits(const CaffeNet& net) {
    std::map<std::string, std::string> alias;
    for (const CaffeLayer& layer : net.layers) {
      CaffeLayer kept = layer;
      for (std::string& bottom : kept.bottoms)
        if (const auto found = alias.find(bottom); found != alias.end()) bottom = found->second;
      if (kept.type == "Split" && kept.bottoms.size() == 1) {
        for (const std::string& top : kept.tops) alias[top] = kept.bottoms[0];
      } else {
        layers_.push_back(std::move(kept));
      }
    }
  }

  const CaffeLayer* find(const std::string& name) const {
    for (const CaffeLayer& layer : layers_)
      if (layer.name == name && (layer.type == "Convolution" || layer.type == "InnerProduct")) return &layer;
    return nullptr;
  }
  std::size_t index_of(const CaffeLayer& layer) const {
    return static_cast<std::size_t>(&layer - layers_.data());
  }

  [[noreturn]] void fail(ErrorCode code, const CaffeLayer& layer, const std::string& what) const {
    throw Error(code, fmt::format("{}: layer {} ({}): {}", source_, layer.name, layer.type, what));
  }
  [[noreturn]] void unsupported(const CaffeLayer& layer, const std::string& what) const {
    fail(ErrorCode::unsupported, layer, what);
  }

  Place input_of(const CaffeLayer& layer) const {
    if (layer.bottoms.size() != 1)
      unsupported(layer, fmt::format("reads {} blobs; only a plain chain of layers can be converted",
                                     layer.bottoms.size()));
    return {layer.bottoms[0], index_of(layer)};
  }

  // The last layer in front of `place` that writes its blob; null where the blob is the network's input.
  const CaffeLayer* producer(const Place& place) const {
    for (std::size_t i = place.before; i-- > 0;) {
      const auto& tops = layers_[i].tops;
      if (std::find(tops.begin(), tops.end(), place.blob) == tops.end()) continue;
      return layers_[i].bottoms.empty() ? nullptr : &layers_[i];
    }
    if (std::find(inputs_.begin(), inputs_.end(), place.blob) == inputs_.end() && place.blob != "data")
      throw Error(ErrorCode::bad_file, fmt::format("{}: layer {} reads {}, which no layer makes", source_,
                                                   layers_[place.before].name, place.blob));
    return nullptr;
  }

  // Whether any convolution has parameters; all of them or none.
  void parameters() {
    const CaffeLayer* with = nullptr;
    const CaffeLayer* without = nullptr;
    for (const CaffeLayer& layer : layers_) {
      if (layer.type == "Convolution") (layer.convolution ? with : without) = &layer;
      if (layer.inner_product && layer.inner_product->transpose) unsupported(layer, "transposed weights");
      if ((layer.convolution && !layer.convolution->bias) ||
          (layer.inner_product && !layer.inner_product->bias))
        facts_.without_bias.push_back(layer.name);
    }
    if (with && without)
      fail(ErrorCode::bad_file, *without, "has no convolution_param, while " + with->name + " has one");
    facts_.has_parameters = with != nullptr;
    for (const CaffeLayer& layer : layers_) {
      if (layer.convolution)
        facts_.sizes.push_back({layer.name, layer.convolution->outputs, layer.convolution->kernel});
      if (layer.inner_product) facts_.sizes.push_back({layer.name, layer.inner_product->outputs, {0, 0}});
    }
  }

  // ---- backbone ----

  int square(const CaffeLayer& layer, const char* what, const std::array<std::int64_t, 2>& size) const {
    if (size[0] != size[1]) unsupported(layer, fmt::format("{} {}x{} is not square", what, size[0], size[1]));
    if (size[0] < 0 || size[0] > 4096) fail(ErrorCode::bad_file, layer, fmt::format("{} {}", what, size[0]));
    return static_cast<int>(size[0]);
  }

  void plain_convolution(const CaffeLayer& layer) const {
    if (!layer.convolution) return;
    const CaffeConvolution& c = *layer.convolution;
    if (c.group != 1)
      unsupported(layer, fmt::format("group {}; only ungrouped convolutions can be converted", c.group));
    if (c.dilation[0] != 1 || c.dilation[1] != 1) unsupported(layer, "dilated convolution");
    if (c.kernel[0] < 1 || c.kernel[1] < 1) fail(ErrorCode::bad_file, layer, "no kernel size");
    if (square(layer, "stride", c.stride) == 0) fail(ErrorCode::bad_file, layer, "stride 0");
    square(layer, "pad", c.pad);
  }

  BackboneLayer convolution(const CaffeLayer& layer, bool relu) const {
    plain_convolution(layer);
    BackboneLayer out;
    out.kind = BackboneLayer::Kind::conv;
    out.name = layer.name;
    out.relu = relu;
    if (layer.convolution) {
      out.stride = square(layer, "stride", layer.convolution->stride);
      out.pad = square(layer, "pad", layer.convolution->pad);
    }
    return out;
  }

  BackboneLayer pooling(const CaffeLayer& layer) const {
    BackboneLayer out;
    out.kind = BackboneLayer::Kind::max_pool;
    out.name = layer.name;
    if (!facts_.has_parameters) return out;
    const CaffePooling p = layer.pooling.value_or(CaffePooling{});
    if (p.method != CaffePooling::Method::max || p.global)
      unsupported(layer, "only max pooling can be converted");
    out.pool = MaxPool{square(layer, "kernel", p.kernel), square(layer, "stride", p.stride),
                       square(layer, "pad", p.pad), p.rounding};
    if (out.pool.kernel == 0) fail(ErrorCode::bad_file, layer, "no kernel size");
    if (out.pool.stride == 0) fail(ErrorCode::bad_file, layer, "stride 0");
    if (out.pool.pad >= out.pool.kernel)
      fail(ErrorCode::bad_file, layer, fmt::format("pad {} with kernel {}", out.pool.pad, out.pool.kernel));
    return out;
  }

  BackboneLayer normalisation(const CaffeLayer& layer) const {
    BackboneLayer out;
    out.kind = BackboneLayer::Kind::lrn;
    out.name = layer.name;
    if (!facts_.has_parameters) return out;
    Lrn lrn;
    lrn.region = LrnRegion::across_channels;  // Caffe's defaults, where the layer has no parameters
    lrn.size = 5;
    lrn.alpha = 1;
    out.lrn = layer.lrn.value_or(lrn);
    if (out.lrn.size < 1 || out.lrn.size > 4096 || out.lrn.size % 2 == 0)
      fail(ErrorCode::bad_file, layer, fmt::format("local_size {} is not odd", out.lrn.size));
    return out;
  }

  // The chain of layers that makes `place`, network input first.
  std::vector<BackboneLayer> chain(Place place) const {
    std::vector<BackboneLayer> layers;
    const CaffeLayer* relu = nullptr;
    while (const CaffeLayer* layer = producer(place)) {
      if (layer->type == "ReLU") {
        plain_relu(*layer);
        relu = layer;
      } else if (layer->type == "Convolution") {
        layers.push_back(convolution(*layer, relu != nullptr));
        relu = nullptr;
      } else if (layer->type == "LRN" || layer->type == "Pooling") {
        if (relu) unsupported(*relu, "a ReLU after " + layer->name + "; only convolutions can have one");
        layers.push_back(layer->type == "LRN" ? normalisation(*layer) : pooling(*layer));
      } else {
        unsupported(*layer,
                    "cannot stand in a backbone, which is made of Convolution, ReLU, LRN and Pooling");
      }
      place = input_of(*layer);
    }
    if (relu) unsupported(*relu, "a ReLU of the network's input");
    std::reverse(layers.begin(), layers.end());
    return layers;
  }

  void plain_relu(const CaffeLayer& layer) const {
    if (layer.negative_slope != 0) unsupported(layer, fmt::format("negative_slope {}", layer.negative_slope));
  }

  // A network trained for classification: everything up to the last convolution.
  void pretrained() {
    const CaffeLayer* last = nullptr;
    for (const CaffeLayer& layer : layers_) {
      if (layer.type == "InnerProduct" || layer.type == "ROIPooling") break;
      if (layer.type == "Convolution") last = &layer;
    }
    if (!last || last->tops.size() != 1) return;
    std::size_t after = index_of(*last) + 1;  // past its own ReLU
    if (after < layers_.size() && layers_[after].type == "ReLU" && !layers_[after].tops.empty() &&
        layers_[after].bottoms == last->tops)
      last = &layers_[after++];
    facts_.backbone = chain({last->tops[0], after});
  }

  // ---- RPN ----

  void one_by_one(const CaffeLayer& layer) const {
    plain_convolution(layer);
    if (layer.type != "Convolution") unsupported(layer, "expected a 1x1 convolution");
    if (!layer.convolution) return;
    const CaffeConvolution& c = *layer.convolution;
    if (c.kernel[0] != 1 || c.kernel[1] != 1 || c.stride[0] != 1 || c.pad[0] != 0)
      unsupported(layer,
                  fmt::format("kernel {}x{}, stride {}, pad {}; the RPN's outputs are 1x1 convolutions",
                              c.kernel[0], c.kernel[1], c.stride[0], c.pad[0]));
  }

  void rpn(const CaffeLayer& scores) {
    one_by_one(scores);
    if (const CaffeLayer* deltas = find("rpn_bbox_pred")) {
      one_by_one(*deltas);
      if (deltas->bottoms != scores.bottoms)
        unsupported(*deltas, "does not read the same blob as rpn_cls_score");
    }
    const Place place = input_of(scores);
    const CaffeLayer* relu = producer(place);
    if (!relu || relu->type != "ReLU") unsupported(scores, "its input " + place.blob + " has no ReLU");
    plain_relu(*relu);
    const CaffeLayer* conv = producer(input_of(*relu));
    if (!conv || conv->type != "Convolution") unsupported(*relu, "expected a convolution before it");
    plain_convolution(*conv);
    if (conv->convolution) {
      const CaffeConvolution& c = *conv->convolution;
      if (c.kernel[0] != 3 || c.kernel[1] != 3 || c.stride[0] != 1 || c.pad[0] != 1)
        unsupported(*conv,
                    fmt::format("kernel {}x{}, stride {}, pad {}; the RPN's window is 3x3, stride 1, pad 1",
                                c.kernel[0], c.kernel[1], c.stride[0], c.pad[0]));
    }
    facts_.rpn = RpnFacts{conv->name, place.blob};
    features_ = input_of(*conv).blob;
    facts_.backbone = chain(input_of(*conv));
  }

  void anchors() {
    const CaffeLayer* found = nullptr;
    for (const CaffeLayer& layer : layers_) {
      if (layer.type == "Proposal" && facts_.has_parameters) return opencv_anchors(layer);
      if (!layer.python) continue;
      if (layer.python->layer == "ProposalLayer") found = &layer;
      if (layer.python->layer == "AnchorTargetLayer" && !found) found = &layer;
    }
    if (!found) return;
    const std::string where = fmt::format("{}: layer {}", source_, found->name);
    const ParamStr given = parse_param_str(found->python->param_str, where);
    AnchorFacts facts;
    facts.scales = {8, 16, 32};  // the published layer's own defaults
    facts.ratios = {0.5, 1, 2};
    for (const auto& [key, values] : given.numbers) {
      const bool positive = std::all_of(values.begin(), values.end(), [](double v) { return v > 0; });
      if (values.empty() || !positive)
        throw Error(ErrorCode::bad_file, where + ": param_str: " + key + " must be positive numbers");
      if (key == "scales")
        facts.scales = values;
      else if (key == "ratios")
        facts.ratios = values;
      else if (key == "feat_stride" && values.size() == 1)
        facts.feat_stride = values[0];
      else
        throw Error(ErrorCode::unsupported, where + ": param_str: the meaning of " + key + " is not known");
    }
    if (!given.numbers.count("feat_stride"))
      throw Error(ErrorCode::bad_file, where + ": param_str has no feat_stride");
    facts_.anchors = facts;
  }

  void opencv_anchors(const CaffeLayer& layer) {
    const CaffeProposal p = layer.proposal.value_or(CaffeProposal{});
    const auto positive = [](const std::vector<double>& values) {
      return !values.empty() && std::all_of(values.begin(), values.end(), [](double v) { return v > 0; });
    };
    if (!positive(p.scales) || !positive(p.ratios))
      fail(ErrorCode::bad_file, layer, "proposal_param must give scales and ratios, positive numbers");
    if (!(p.feat_stride > 0) || !(p.base_size > 0))
      fail(ErrorCode::bad_file, layer,
           fmt::format("feat_stride {}, base_size {}", p.feat_stride, p.base_size));
    facts_.anchors = AnchorFacts{p.feat_stride, p.base_size, p.scales, p.ratios};
  }

  // ---- head ----

  void roi_pooling() {
    for (const CaffeLayer& layer : layers_) {
      if (layer.type != "ROIPooling") continue;
      if (facts_.roi) unsupported(layer, "a second RoI pooling");
      if (layer.bottoms.size() != 2 || layer.tops.size() != 1)
        unsupported(layer, "expected two inputs, features and rois, and one output");
      if (!features_.empty() && layer.bottoms[0] != features_)
        unsupported(layer, fmt::format("pools {}, while the RPN reads {}", layer.bottoms[0], features_));
      RoiFacts roi;
      roi.top = layer.tops[0];
      if (facts_.has_parameters) {
        const CaffeRoiPooling p = layer.roi_pooling.value_or(CaffeRoiPooling{});
        if (p.pooled_h < 1 || p.pooled_w < 1 || p.pooled_h > 256 || p.pooled_w > 256)
          fail(ErrorCode::bad_file, layer, fmt::format("pooled size {}x{}", p.pooled_h, p.pooled_w));
        if (!(p.spatial_scale > 0))
          fail(ErrorCode::bad_file, layer, fmt::format("spatial_scale {}", p.spatial_scale));
        roi.pooled_h = static_cast<int>(p.pooled_h);
        roi.pooled_w = static_cast<int>(p.pooled_w);
        roi.spatial_scale = p.spatial_scale;
      }
      facts_.roi = roi;
    }
  }

  // One fully connected layer of the head, found by walking back from `place`; advances place to its input.
  double fully_connected(const char* name, Place& place) const {
    double scale = 1;
    bool relu = false;
    for (;;) {
      const CaffeLayer* layer = producer(place);
      if (!layer)
        throw Error(ErrorCode::unsupported,
                    fmt::format("{}: the detection head does not pass through {}", source_, name));
      if (layer->type == "Dropout" && !relu) {
        const CaffeDropout d = layer->dropout.value_or(CaffeDropout{});
        if (!(d.ratio >= 0 && d.ratio < 1))
          fail(ErrorCode::bad_file, *layer, fmt::format("dropout_ratio {}", d.ratio));
        if (!d.scale_train) scale *= 1 - d.ratio;
      } else if (layer->type == "Power" && !relu) {
        const CaffePower p = layer->power.value_or(CaffePower{});
        if (p.power != 1 || p.shift != 0 || !(p.scale > 0))
          unsupported(*layer,
                      fmt::format("power {}, scale {}, shift {}; only a positive scale can stand in the head",
                                  p.power, p.scale, p.shift));
        scale *= p.scale;
      } else if (layer->type == "ReLU" && !relu) {
        plain_relu(*layer);
        relu = true;
      } else if (layer->type == "InnerProduct" && layer->name == name && relu) {
        place = input_of(*layer);
        return scale;
      } else {
        unsupported(
            *layer,
            fmt::format(
                "the head before the scores must be fc6, ReLU, fc7, ReLU; expected {} or its ReLU or dropout",
                name));
      }
      place = input_of(*layer);
    }
  }

  void head() {
    const CaffeLayer* scores = find("cls_score");
    if (!scores || !facts_.roi) return;
    if (const CaffeLayer* boxes = find("bbox_pred"); boxes && boxes->bottoms != scores->bottoms)
      unsupported(*boxes, "does not read the same blob as cls_score");
    Place place = input_of(*scores);
    const double fc7 = fully_connected("fc7", place);
    const double fc6 = fully_connected("fc6", place);
    if (place.blob != facts_.roi->top)
      throw Error(ErrorCode::unsupported, fmt::format("{}: fc6 reads {}, not the pooled regions {}", source_,
                                                      place.blob, facts_.roi->top));
    if (!facts_.has_parameters) return;
    if (fc6 != fc7)
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: dropout scales fc6 by {} and fc7 by {} when testing; they must be equal",
                              source_, fc6, fc7));
    facts_.dropout_test_scale = fc6;
  }

  const std::string source_;
  std::vector<std::string> inputs_;
  std::vector<CaffeLayer> layers_;
  std::string features_;  // the blob that the RPN reads
  NetFacts facts_;
};

}  // namespace

NetFacts facts_of(const CaffeNet& net, const std::string& source) { return Reader(net, source).read(); }

}  // namespace frcnn
