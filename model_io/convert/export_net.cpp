#include "model_io/convert/export_net.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <set>
#include <vector>

#include "frcnn/error.h"

namespace frcnn {
namespace {

using frcnn_caffe::Layer;

std::uint32_t u32(std::int64_t value) { return static_cast<std::uint32_t>(value); }

// A double that comes back when its float is read as the shortest text that names it (caffe_file.cpp,
// meant()).
bool survives_as_float(double value) {
  const std::string text = fmt::format("{}", static_cast<float>(value));
  double back = 0;
  std::from_chars(text.data(), text.data() + text.size(), back);
  return back == value;
}

class NetWriter {
 public:
  NetWriter(const ModelConfig& config, const TensorShapes& shapes, CaffeForm form, const std::string& source)
      : config_(config), shapes_(shapes), opencv_(form == CaffeForm::opencv), source_(source) {
    // Names of layers with weights are taken; the others keep out of their way.
    for (const auto& [name, shape] : shapes) names_.insert(name.substr(0, name.rfind('.')));
    for (const BackboneLayer& layer : config.backbone) names_.insert(layer.name);
  }

  frcnn_caffe::Net write() {
    if (config_.kind == ModelKind::detector && config_.roi_op != RoiOp::pool)
      throw Error(ErrorCode::unsupported, source_ + ": roi_op=align: Caffe has no RoI align layer");
    net_.set_name(config_.name);
    input("data", {1, 3, config_.short_side, config_.long_side});
    const std::string features = backbone();
    if (config_.kind == ModelKind::detector) {
      input("im_info", {1, 3});
      rpn(features);
      proposals();
      head(features);
    } else {
      for (const char* name : {"fc6", "fc7"})
        if (shapes_.count(std::string(name) + ".weight")) inner_product(name, "");
    }
    return std::move(net_);
  }

 private:
  void input(const char* name, const std::vector<std::int64_t>& shape) {
    net_.add_input(name);
    auto& dims = *net_.add_input_shape();
    for (const std::int64_t d : shape) dims.add_dim(d);
  }

  Layer& add(const std::string& name, const char* type, const std::vector<std::string>& bottoms,
             const std::vector<std::string>& tops) {
    Layer& layer = *net_.add_layer();
    layer.set_name(name);
    layer.set_type(type);
    for (const auto& bottom : bottoms) layer.add_bottom(bottom);
    for (const auto& top : tops) layer.add_top(top);
    return layer;
  }

  // A layer without weights, under a name that no other layer has.
  Layer& add_free(std::string name, const char* type, const std::vector<std::string>& bottoms,
                  const std::vector<std::string>& tops) {
    while (!names_.insert(name).second) name += "_";
    return add(name, type, bottoms, tops);
  }

  const std::vector<std::int64_t>& shape(const std::string& layer) const {
    return shapes_.at(layer + ".weight");
  }

  // "conv1_1" has "relu1_1", "rpn_conv/3x3" has "rpn_relu/3x3".
  void relu(const std::string& of, const std::string& blob) {
    std::string name = of;
    if (const auto at = name.find("conv"); at != std::string::npos)
      name.replace(at, 4, "relu");
    else if (name.rfind("fc", 0) == 0)
      name.replace(0, 2, "relu");
    else
      name += "_relu";
    add_free(name, "ReLU", {blob}, {blob});
  }

  void convolution(const std::string& name, const std::string& bottom, const std::string& top, int stride,
                   int pad) {
    const auto& dims = shape(name);
    auto& p = *add(name, "Convolution", {bottom}, {top}).mutable_convolution_param();
    p.set_num_output(u32(dims[0]));
    if (dims[2] == dims[3]) {
      p.add_kernel_size(u32(dims[2]));
    } else {
      p.set_kernel_h(u32(dims[2]));
      p.set_kernel_w(u32(dims[3]));
    }
    p.add_pad(u32(pad));
    p.add_stride(u32(stride));
  }

  void inner_product(const std::string& name, const std::string& bottom) {
    std::vector<std::string> bottoms;
    if (!bottom.empty()) bottoms.push_back(bottom);
    add(name, "InnerProduct", bottoms, {name})
        .mutable_inner_product_param()
        ->set_num_output(u32(shape(name)[0]));
  }

  std::string backbone() {
    std::string blob = "data";
    for (const BackboneLayer& layer : config_.backbone) {
      switch (layer.kind) {
        case BackboneLayer::Kind::conv:
          convolution(layer.name, blob, layer.name, layer.stride, layer.pad);
          if (layer.relu) relu(layer.name, layer.name);
          break;
        case BackboneLayer::Kind::lrn:
          normalisation(layer, blob);
          break;
        case BackboneLayer::Kind::max_pool:
          pooling(layer, blob);
          break;
      }
      blob = layer.name;
    }
    return blob;
  }

  void normalisation(const BackboneLayer& layer, const std::string& bottom) {
    auto& p = *add(layer.name, "LRN", {bottom}, {layer.name}).mutable_lrn_param();
    p.set_local_size(u32(layer.lrn.size));
    p.set_alpha(layer.lrn.alpha);
    p.set_beta(layer.lrn.beta);
    if (layer.lrn.region == LrnRegion::within_channel) {
      p.set_norm_region(frcnn_caffe::Lrn::WITHIN_CHANNEL);
      p.set_engine(frcnn_caffe::Lrn::CAFFE);  // cuDNN's version of it is another function
    }
    if (layer.lrn.k != 1) p.set_k(layer.lrn.k);
  }

  void pooling(const BackboneLayer& layer, const std::string& bottom) {
    auto& p = *add(layer.name, "Pooling", {bottom}, {layer.name}).mutable_pooling_param();
    p.set_pool(frcnn_caffe::Pooling::MAX);
    p.set_kernel_size(u32(layer.pool.kernel));
    p.set_stride(u32(layer.pool.stride));
    p.set_pad(u32(layer.pool.pad));
    if (layer.pool.rounding == Rounding::floor) {
      if (opencv_)
        p.set_ceil_mode(false);
      else
        p.set_round_mode(frcnn_caffe::Pooling::FLOOR);
    }
  }

  void reshape(const std::string& name, const std::string& bottom, const std::vector<std::int64_t>& dims) {
    auto& p = *add_free(name, "Reshape", {bottom}, {name}).mutable_reshape_param()->mutable_shape();
    for (const std::int64_t d : dims) p.add_dim(d);
  }

  void rpn(const std::string& features) {
    const std::string& top = config_.names.rpn_top;
    convolution(config_.names.rpn_conv, features, top, 1, 1);
    relu(config_.names.rpn_conv, top);
    convolution("rpn_cls_score", top, "rpn_cls_score", 1, 0);
    convolution("rpn_bbox_pred", top, "rpn_bbox_pred", 1, 0);
    reshape("rpn_cls_score_reshape", "rpn_cls_score", {0, 2, -1, 0});
    add_free("rpn_cls_prob", "Softmax", {"rpn_cls_score_reshape"}, {"rpn_cls_prob"});
    reshape("rpn_cls_prob_reshape", "rpn_cls_prob", {0, shape("rpn_cls_score")[0], -1, 0});
  }

  void proposals() {
    const std::vector<std::string> bottoms{"rpn_cls_prob_reshape", "rpn_bbox_pred", "im_info"};
    if (opencv_) {
      auto& p = *add_free("proposal", "Proposal", bottoms, {"rois"}).mutable_proposal_param();
      p.set_feat_stride(whole(config_.feat_stride, "feat_stride"));
      p.set_base_size(whole(config_.anchor_base_size, "anchor_base_size"));
      for (const double r : config_.anchor_ratios) p.add_ratio(static_cast<float>(r));
      for (const double s : config_.anchor_scales) p.add_scale(static_cast<float>(s));
      if (config_.pre_nms_top_n > 0) p.set_pre_nms_topn(u32(config_.pre_nms_top_n));
      if (config_.post_nms_top_n > 0) p.set_post_nms_topn(u32(config_.post_nms_top_n));
      p.set_nms_thresh(static_cast<float>(config_.rpn_nms));
      return;
    }
    const ModelConfig release;
    std::string text = fmt::format("'feat_stride': {}", config_.feat_stride);
    if (config_.anchor_scales != release.anchor_scales)
      text += fmt::format(" \n'scales': !!python/tuple [{}]", fmt::join(config_.anchor_scales, ", "));
    if (config_.anchor_ratios != release.anchor_ratios)
      text += fmt::format(" \n'ratios': !!python/tuple [{}]", fmt::join(config_.anchor_ratios, ", "));
    auto& p = *add_free("proposal", "Python", bottoms, {"rois"}).mutable_python_param();
    p.set_module("rpn.proposal_layer");
    p.set_layer("ProposalLayer");
    p.set_param_str(text);
  }

  std::uint32_t whole(double value, const char* key) const {
    if (!(value >= 1 && value <= 1e6) || value != std::floor(value))
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: {}={}: OpenCV's proposal layer takes whole numbers", source_, key, value));
    return u32(static_cast<std::int64_t>(value));
  }

  void head(const std::string& features) {
    const std::string& pooled = config_.names.roi_pool;
    auto& p = *add_free(pooled == "pool5" ? "roi_pool5" : pooled, "ROIPooling", {features, "rois"}, {pooled})
                   .mutable_roi_pooling_param();
    p.set_pooled_w(u32(config_.pooled_w));
    p.set_pooled_h(u32(config_.pooled_h));
    p.set_spatial_scale(static_cast<float>(config_.spatial_scale));
    std::string blob = pooled;
    for (const char* name : {"fc6", "fc7"}) {
      inner_product(name, blob);
      relu(name, name);
      dropout(name[2], name);
      blob = name;
    }
    inner_product("cls_score", blob);
    inner_product("bbox_pred", blob);
    add_free("cls_prob", "Softmax", {"cls_score"}, {"cls_prob"});
    if (opencv_) detections();
  }

  // The release's ZF networks halve the activations when testing (scale_train: false). Where a dropout layer
  // cannot say the factor, and in OpenCV, which ignores scale_train, a Power layer does.
  void dropout(char number, const std::string& blob) {
    const double scale = config_.dropout_test_scale;
    const double ratio = 1 - scale;
    if (scale == 1 && opencv_) return;
    if (scale != 1 && (opencv_ || ratio < 0 || !survives_as_float(ratio) || 1 - ratio != scale)) {
      add_free(fmt::format("scale{}", number), "Power", {blob}, {blob})
          .mutable_power_param()
          ->set_scale(static_cast<float>(scale));
      return;
    }
    auto& p = *add_free(fmt::format("drop{}", number), "Dropout", {blob}, {blob}).mutable_dropout_param();
    p.set_dropout_ratio(scale == 1 ? 0.5f : static_cast<float>(ratio));
    if (scale != 1) p.set_scale_train(false);
  }

  void detections() {
    const bool shared = shape("bbox_pred")[0] == 4;
    reshape("cls_prob_reshape", "cls_prob", {1, -1});
    reshape("bbox_pred_reshape", "bbox_pred", {1, -1});
    auto& slice = *add_free("proposal_crop", "Slice", {"rois"}, {"proposal_batch_ids", "proposal_bboxes"})
                       .mutable_slice_param();
    slice.set_axis(1);
    slice.add_slice_point(1);
    reshape("proposal_reshape", "proposal_bboxes", {1, 1, -1, 1});
    auto& p = *add_free("detection_out", "DetectionOutput",
                        {"bbox_pred_reshape", "cls_prob_reshape", "proposal_reshape"}, {"detection_out"})
                   .mutable_detection_output_param();
    p.set_num_classes(u32(shape("cls_score")[0]));
    p.set_share_location(shared);
    p.set_background_label_id(0);
    p.mutable_nms_param()->set_nms_threshold(static_cast<float>(config_.nms));
    p.set_code_type(frcnn_caffe::DetectionOutput::CENTER_SIZE);
    p.set_keep_top_k(config_.max_detections > 0 ? static_cast<std::int32_t>(config_.max_detections) : -1);
    p.set_variance_encoded_in_target(true);
    p.set_confidence_threshold(static_cast<float>(config_.score_threshold));
    p.set_normalized_bbox(false);
  }

  const ModelConfig& config_;
  const TensorShapes& shapes_;
  const bool opencv_;
  const std::string& source_;
  std::set<std::string> names_;
  frcnn_caffe::Net net_;
};

}  // namespace

frcnn_caffe::Net caffe_net_of(const ModelConfig& config, const TensorShapes& shapes, CaffeForm form,
                              const std::string& source) {
  return NetWriter(config, shapes, form, source).write();
}

}  // namespace frcnn
