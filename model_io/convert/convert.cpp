#include "model_io/convert/convert.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "frcnn/error.h"
#include "model_io/atomic_file.h"
#include "model_io/class_list.h"
#include "model_io/convert/caffe_net.h"
#include "model_io/convert/fold.h"
#include "model_io/convert/implied.h"
#include "model_io/convert/jwyang.h"
#include "model_io/convert/promises.h"
#include "model_io/convert/source.h"
#include "model_io/convert/weights_out.h"
#include "model_io/model_file.h"
#include "model_io/safetensors.h"

namespace frcnn {
namespace {

// One conversion, from reading to writing.
class Conversion {
 public:
  explicit Conversion(const ConvertOptions& options) : options_(options) {}

  ConversionResult run() {
    read();
    drop_unused();
    follow_network();
    choose_kind();
    topology();
    fold();
    proposals();
    head();
    conventions();
    classes();
    set();
    invent_biases();
    demand_missing();
    check();
    write();
    return std::move(result_);
  }

 private:
  // ---- sources ----

  void read() {
    if (options_.sources.empty()) throw Error(ErrorCode::invalid_argument, "no file to convert");
    for (const std::string& path : options_.sources) {
      Source source = read_source(path);
      if (!source.config) keep_apart(path, options_.destination);  // a model of ours may be written anew
      result_.sources.push_back({path, source.format});
      for (const std::string& what : source.ignored) result_.ignored.push_back(path + ": " + what);
      if (source.scheme == NameScheme::jwyang) add(unnormalise_boxes(source));
      if (source.scheme != NameScheme::caffe) {
        scheme_ = source.scheme;
        scheme_file_ = path;
      }
      for (const auto& [key, value] : source.facts) facts_[key] = value;
      if (!source.net && !source.config) foldable_.insert(path);
      for (SourceTensor& tensor : source.tensors) tensors_[tensor.name] = std::move(tensor);
      if (source.net) nets_.push_back(facts_of(*source.net, path));
      if (source.config) {
        native_ = true;
        config_ = *source.config;
      }
      source_names_ += (source_names_.empty() ? "" : " + ") + path;
    }
    if (!options_.prototxt.empty()) {
      keep_apart(options_.prototxt, options_.destination);
      prototxt_ = facts_of(read_prototxt(options_.prototxt), options_.prototxt);
      if (prototxt_->backbone.empty() || !prototxt_->has_parameters)
        throw Error(ErrorCode::bad_file, options_.prototxt + ": no convolutions that make a backbone");
    }
    for (const auto& [name, tensor] : tensors_) shapes_[name] = tensor.shape;
    published_ = published_model(shapes_);
  }

  // The classifier of an ImageNet network.
  void drop_unused() {
    for (const char* name : {"fc8.weight", "fc8.bias"})
      if (const auto found = tensors_.find(name); found != tensors_.end()) {
        result_.ignored.push_back(fmt::format("{} {} of {}: the ImageNet classifier",
                                              found->second.source_name, shape_string(found->second.shape),
                                              found->second.file));
        tensors_.erase(found);
      }
  }

  // PyTorch's names say a place in the network; where a prototxt names the layers otherwise, they follow it.
  void follow_network() {
    if (scheme_ == NameScheme::caffe || !prototxt_) return;
    std::vector<std::string> theirs;
    for (const BackboneLayer& layer : prototxt_->backbone)
      if (layer.kind == BackboneLayer::Kind::conv) theirs.push_back(layer.name);
    std::vector<std::string> ours;
    if (const auto vgg = topology_of(shapes_))
      for (const BackboneLayer& layer : vgg->backbone)
        if (layer.kind == BackboneLayer::Kind::conv) ours.push_back(layer.name);
    std::map<std::string, std::string> renamed;
    if (ours.size() == theirs.size())
      for (std::size_t i = 0; i < ours.size(); ++i) renamed[ours[i]] = theirs[i];
    if (prototxt_->rpn) renamed["rpn_conv/3x3"] = prototxt_->rpn->conv;
    std::map<std::string, SourceTensor> tensors;
    shapes_.clear();
    for (auto& [name, tensor] : tensors_) {
      const std::size_t dot = name.rfind('.');
      if (const auto to = renamed.find(name.substr(0, dot)); to != renamed.end())
        tensor.name = to->second + (dot == std::string::npos ? "" : name.substr(dot));
      shapes_[tensor.name] = tensor.shape;
      tensors[tensor.name] = std::move(tensor);
    }
    tensors_ = std::move(tensors);
  }

  bool has(const std::string& layer) const {
    return shapes_.count(layer + ".weight") || shapes_.count(layer + ".bias");
  }

  // The most telling source of one fact: the prototxt, else the last network that has it.
  template <typename Member>
  auto* fact(Member NetFacts::*member) const {
    if (prototxt_ && (*prototxt_).*member) return &*((*prototxt_).*member);
    for (auto net = nets_.rbegin(); net != nets_.rend(); ++net)
      if (net->has_parameters && (*net).*member) return &*((*net).*member);
    return static_cast<const typename Member::value_type*>(nullptr);
  }

  void choose_kind() {
    bool detector = prototxt_ && prototxt_->detector;
    for (const char* layer :
         {"rpn_conv/3x3", "rpn_conv1", "rpn_cls_score", "rpn_bbox_pred", "cls_score", "bbox_pred"})
      detector = detector || has(layer);
    if (native_) detector = detector || config_.kind == ModelKind::detector;
    config_.kind = detector ? ModelKind::detector : ModelKind::backbone;
  }
  bool detector() const { return config_.kind == ModelKind::detector; }

  // ---- topology ----

  const NetFacts* parametrised_net() const {
    if (prototxt_) return &*prototxt_;
    for (auto net = nets_.rbegin(); net != nets_.rend(); ++net)
      if (net->has_parameters && !net->backbone.empty()) return &*net;
    return nullptr;
  }

  void topology() {
    if (const NetFacts* net = parametrised_net()) {
      topology_ = net;
      config_.backbone = net->backbone;
    } else if (!native_) {
      topology_from_names();
    }
    for (const NetFacts& net : nets_)
      if (!net.name.empty()) config_.name = net.name;
    if (prototxt_ && !prototxt_->name.empty()) config_.name = prototxt_->name;
    if (config_.name.empty() && implied_) config_.name = implied_->name;
  }

  void topology_from_names() {
    const bool pytorch = scheme_ != NameScheme::caffe;
    implied_ = topology_of(shapes_, pytorch ? Rounding::floor : Rounding::ceil);
    if (!implied_)
      throw Error(
          ErrorCode::bad_model,
          fmt::format(
              "{}: no layer parameters, and the names and kernels of the convolutions are not those of VGG "
              "(conv1_1, conv1_2, ...) or ZF (conv1 ... conv5); give the network with --prototxt",
              source_names_));
    config_.backbone = implied_->backbone;
    std::string layers;
    for (const BackboneLayer& layer : implied_->backbone) layers += (layers.empty() ? "" : " ") + layer.name;
    result_.implied.push_back(
        fmt::format("the layers' names and kernels are {}'s: {}", implied_->name, layers));
    if (pytorch)
      result_.implied.push_back(fmt::format("pool_rounding=floor: {}'s pools", program_of(scheme_)));
    // A net without parameters still has its chain of layers, which must be that one.
    const auto same = [](const BackboneLayer& a, const BackboneLayer& b) {
      return a.kind == b.kind && a.name == b.name && a.relu == b.relu;
    };
    for (const NetFacts& net : nets_)
      if (!net.backbone.empty() && !std::equal(net.backbone.begin(), net.backbone.end(),
                                               config_.backbone.begin(), config_.backbone.end(), same))
        throw Error(ErrorCode::bad_model, fmt::format("{}: its layers have no parameters and are not chained "
                                                      "as {}'s; give the network with --prototxt",
                                                      net.source, implied_->name));
  }

  // The first convolution of torchvision's networks reads other pixels.
  void fold() {
    if (!options_.input && scheme_ == NameScheme::torchvision)
      result_.assumed.push_back(
          "the network reads blue, green, red in 0..255 minus the mean, as Caffe's; weights that torchvision "
          "trained "
          "read other pixels: --input torchvision folds those into the first convolution");
    // Weights of a published size were trained somewhere, and a wrong guess gives a detector that finds
    // nothing.
    pixels_unknown_ = !options_.input && scheme_ == NameScheme::torchvision && published_;
    if (options_.input != InputForm::torchvision) return;
    std::string first;
    for (const BackboneLayer& layer : config_.backbone)
      if (layer.kind == BackboneLayer::Kind::conv && first.empty()) first = layer.name;
    const auto weight = tensors_.find(first + ".weight");
    if (weight == tensors_.end()) return;  // check_model names it
    if (!foldable_.count(weight->second.file))
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{}: {} reads Caffe's pixels already; --input torchvision does not apply",
                              weight->second.file, first));
    const TorchvisionInput input;
    fold_input(weight->second, input);
    config_.pixel_mean = input.pixel_mean;
    result_.implied.push_back(
        fmt::format("pixel_mean={}: torchvision's, whose channel order and scale are folded into {}",
                    fmt::join(config_.pixel_mean, ","), first));
  }

  double total_stride() const {
    double stride = 1;
    for (const BackboneLayer& layer : config_.backbone) {
      if (layer.kind == BackboneLayer::Kind::conv) stride *= layer.stride;
      if (layer.kind == BackboneLayer::Kind::max_pool) stride *= layer.pool.stride;
    }
    return stride;
  }

  // ---- conventions ----

  void proposals() {
    if (!detector()) return;
    rpn_names();
    if (const AnchorFacts* anchors = fact(&NetFacts::anchors)) {
      config_.feat_stride = anchors->feat_stride;
      config_.anchor_base_size = anchors->base_size;
      config_.anchor_scales = anchors->scales;
      config_.anchor_ratios = anchors->ratios;
    } else if (!native_) {
      config_.feat_stride = total_stride();
      result_.implied.push_back(
          fmt::format("feat_stride={}: the product of the layers' strides", config_.feat_stride));
      if (jwyang()) {
        add(jwyang_proposals(config_, shapes_));
      } else if (published_) {
        config_.anchor_scales = published_->anchor_scales;
        config_.anchor_ratios = published_->anchor_ratios;
        assume(fmt::format("anchor_scales={}", fmt::join(config_.anchor_scales, ",")));
        assume(fmt::format("anchor_ratios={}", fmt::join(config_.anchor_ratios, ",")));
      } else {
        missing_.insert("anchor_scales");
        missing_.insert("anchor_ratios");
      }
    }
  }

  // The network is as jwyang's program runs it; with a prototxt it is as Caffe does.
  bool jwyang() const { return scheme_ == NameScheme::jwyang && !prototxt_ && !native_; }

  void rpn_names() {
    if (const RpnFacts* rpn = fact(&NetFacts::rpn)) {
      config_.names.rpn_conv = rpn->conv;
      config_.names.rpn_top = rpn->top;
    } else if (!native_) {
      for (const NetFacts& net : nets_)
        if (net.rpn) {
          config_.names.rpn_conv = net.rpn->conv;
          config_.names.rpn_top = net.rpn->top;
          return;
        }
      if (!has("rpn_conv/3x3") && has("rpn_conv1"))
        config_.names.rpn_conv = config_.names.rpn_top = "rpn_conv1";
    }
  }

  void head() {
    if (!detector()) return;
    if (const RoiFacts* roi = fact(&NetFacts::roi)) {
      config_.names.roi_pool = roi->top;
      config_.pooled_h = roi->pooled_h;
      config_.pooled_w = roi->pooled_w;
      config_.spatial_scale = roi->spatial_scale;
    } else if (!native_) {
      implied_pooling();
    }
    pooling_mode();
    if (const double* scale = fact(&NetFacts::dropout_test_scale)) {
      config_.dropout_test_scale = *scale;
    } else if (implied_) {
      config_.dropout_test_scale = implied_->dropout_test_scale;
      result_.implied.push_back(
          fmt::format("dropout_test_scale={}: {}'s", config_.dropout_test_scale, implied_->name));
    } else if (!native_) {
      missing_.insert("dropout_test_scale");
    }
  }

  void pooling_mode() {
    if (scheme_ != NameScheme::jwyang || native_) return;
    add(jwyang_pooling(facts_, prototxt_.has_value()));
    check_class_agnostic(facts_, shapes_, scheme_file_);
  }

  void implied_pooling() {
    if (implied_) config_.names.roi_pool = implied_->roi_pool;
    for (const NetFacts& net : nets_)
      if (net.roi) config_.names.roi_pool = net.roi->top;
    config_.spatial_scale = 1 / config_.feat_stride;
    result_.implied.push_back(fmt::format("spatial_scale={}: one over feat_stride", config_.spatial_scale));
    std::int64_t channels = 0;
    for (const BackboneLayer& layer : config_.backbone)
      if (const auto found = shapes_.find(layer.name + ".weight");
          found != shapes_.end() && !found->second.empty())
        channels = found->second[0];
    const auto fc6 = shapes_.find("fc6.weight");
    if (fc6 == shapes_.end() || fc6->second.size() != 2 || channels < 1)
      return;  // check_model names what is wrong
    const std::int64_t cells = fc6->second[1] / channels;
    const auto side = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(cells))));
    if (side < 1 || side > 256 || side * side * channels != fc6->second[1]) {
      missing_.insert("pooled_h");
      missing_.insert("pooled_w");
      return;
    }
    config_.pooled_h = config_.pooled_w = static_cast<int>(side);
    result_.implied.push_back(fmt::format("pooled_h=pooled_w={}: fc6 reads {} numbers of {} channels", side,
                                          fc6->second[1], channels));
  }

  // What no network file says. The release has one set of values, which belongs to its own files.
  void conventions() {
    if (native_) return;
    if (!detector()) backbone_head();
    if (options_.input == InputForm::torchvision) return;  // its mean is set
    const std::string mean = fmt::format("pixel_mean={}", fmt::join(config_.pixel_mean, ","));
    if (prototxt_ || !nets_.empty()) {
      const std::string release = ": of the release that this network format belongs to";
      result_.implied.push_back(mean + release);
      if (detector()) result_.implied.push_back("image scale, proposal and detection thresholds" + release);
    } else if (jwyang()) {
      result_.implied.push_back(fmt::format("{}: {}'s", mean, program_of(scheme_)));
      result_.implied.push_back(
          fmt::format("image scale, proposal and detection thresholds: {}'s, which are the release's",
                      program_of(scheme_)));
    } else if (published_ || !detector()) {
      assume(mean);
    } else {
      missing_.insert("pixel_mean");
    }
  }

  // A backbone has no head, but a configuration has a place for its conventions: those of the detectors that
  // were published with this network, or the release's VGG.
  void backbone_head() {
    const std::optional<ImpliedTopology> known = topology_of(shapes_);
    config_.feat_stride = total_stride();
    config_.spatial_scale = 1 / config_.feat_stride;
    if (!known) return;
    config_.names.roi_pool = known->roi_pool;
    config_.pooled_h = config_.pooled_w = known->pooled;
    config_.dropout_test_scale = known->dropout_test_scale;
    result_.assumed.push_back(
        fmt::format("roi_pool={}, pooled_h=pooled_w={}, dropout_test_scale={}: of the detectors "
                    "published with {}; the source has no head",
                    known->roi_pool, known->pooled, known->dropout_test_scale, known->name));
  }

  void add(const Findings& findings) {
    result_.implied.insert(result_.implied.end(), findings.implied.begin(), findings.implied.end());
    missing_.insert(findings.missing.begin(), findings.missing.end());
    if (!findings.why.empty()) why_missing_ = " (" + findings.why + ")";
  }

  // --set has the last word, so what it replaces is neither implied nor assumed.
  void set() {
    for (const auto& [key, value] : options_.sets) {
      set_config(config_, key, value);
      const auto replaced = [start = key + "="](const std::string& line) {
        return line.rfind(start, 0) == 0;
      };
      std::erase_if(result_.implied, replaced);
      std::erase_if(result_.assumed, replaced);
    }
  }

  void assume(const std::string& what) {
    result_.assumed.push_back(what + (published_ ? ": the weights have the shapes of " + published_->name
                                                 : ": usual for backbones; change it with --set"));
  }

  // ---- classes ----

  void classes() {
    if (!detector()) {
      if (!options_.classes.empty())
        throw Error(ErrorCode::invalid_argument,
                    source_names_ + ": a backbone has no classes; --classes does not apply");
      config_.classes.clear();
      return;
    }
    const auto scores = shapes_.find("cls_score.weight");
    const std::int64_t count = scores == shapes_.end() || scores->second.empty() ? 0 : scores->second[0];
    if (!options_.classes.empty()) {
      config_.classes = read_class_list(options_.classes);
      if (count && static_cast<std::int64_t>(config_.classes.size()) != count)
        throw Error(
            ErrorCode::bad_model,
            fmt::format(
                "the class list {} has {} names with the background, cls_score of {} scores {} classes",
                options_.classes, config_.classes.size(), source_names_, count));
      return;
    }
    if (native_ && static_cast<std::int64_t>(config_.classes.size()) == count) return;
    if (published_ && !published_->classes.empty()) {
      config_.classes = published_->classes;
      assume(fmt::format("classes={}", fmt::join(config_.classes.begin() + 1, config_.classes.end(), ",")));
      return;
    }
    if (count > 1'000'000)
      throw Error(ErrorCode::bad_model, fmt::format("{}: cls_score scores {} classes", source_names_, count));
    config_.classes = {"__background__"};
    for (std::int64_t i = 1; i < std::max<std::int64_t>(count, 2); ++i)
      config_.classes.push_back(fmt::format("class{}", i));
    result_.implied.push_back(fmt::format("classes=class1 to class{}: no names were given (--classes)",
                                          config_.classes.size() - 1));
  }

  // ---- checks ----

  void demand_missing() {
    for (const auto& [key, value] : options_.sets) missing_.erase(key);
    const std::string pixels = fmt::format(
        "{} names the layers as torchvision does, whose networks read other pixels than Caffe's, and the "
        "names do not say "
        "which these weights were trained with; give --input torchvision (red, green, blue in 0..1, mean and "
        "deviation) "
        "or --input caffe (blue, green, red in 0..255, mean)",
        scheme_file_);
    if (missing_.empty() && pixels_unknown_) throw Error(ErrorCode::bad_model, pixels);
    if (missing_.empty()) return;
    throw Error(
        ErrorCode::bad_model,
        fmt::format(
            "{}: neither the file nor a published model's shapes say {}{}; give the network's --prototxt, or "
            "--set {}=...{}",
            source_names_, fmt::join(missing_, ", "), why_missing_, fmt::join(missing_, "=... --set "),
            (pixels_unknown_ ? "; " + pixels : "") + other_problems()));
  }

  // What is wrong besides, so that one run tells everything: the model is checked with as many anchors as it
  // has.
  std::string other_problems() const {
    ModelConfig config = config_;
    if (missing_.count("anchor_scales") || missing_.count("anchor_ratios")) {
      const auto scores = shapes_.find("rpn_cls_score.weight");
      const bool known = scores != shapes_.end() && !scores->second.empty();
      const std::int64_t anchors = std::clamp<std::int64_t>(known ? scores->second[0] / 2 : 9, 1, 64);
      config.anchor_ratios = {1};
      config.anchor_scales.assign(static_cast<std::size_t>(anchors), 8);
    }
    try {
      check_model(config, in_stored_types(), source_names_);
    } catch (const Error& error) {
      return std::string("\n") + error.what();
    }
    return {};
  }

  // The engine always adds a bias; a layer that was made without one gets zeros.
  void invent_biases() {
    std::set<std::string> layers;
    if (topology_) layers.insert(topology_->without_bias.begin(), topology_->without_bias.end());
    for (const std::string& layer : layers) {
      const auto weight = tensors_.find(layer + ".weight");
      if (weight == tensors_.end() || tensors_.count(layer + ".bias") || weight->second.shape.empty())
        continue;
      const auto zeros =
          std::make_shared<std::vector<float>>(static_cast<std::size_t>(weight->second.shape[0]), 0.0f);
      SourceTensor bias;
      bias.file = weight->second.file;
      bias.name = layer + ".bias";
      bias.shape = {weight->second.shape[0]};
      bias.data = zeros->data();
      bias.bytes = zeros->size() * sizeof(float);
      bias.owner = zeros;
      tensors_.emplace(bias.name, std::move(bias));
    }
  }

  // f64 becomes f32 on the way.
  std::vector<StoredTensor> in_stored_types() const {
    std::vector<StoredTensor> stored;
    for (const auto& [name, tensor] : tensors_)
      stored.push_back({name, tensor.dtype == DType::f64 ? DType::f32 : tensor.dtype, tensor.shape,
                        tensor.data, tensor.bytes});
    return stored;
  }

  // All that does not fit, in one message.
  void check() const {
    std::string problems = topology_ ? broken_promises(*topology_, shapes_) : "";
    if (detector()) problems += anchor_mismatch(config_, shapes_);
    try {
      check_model(config_, in_stored_types(), source_names_);
    } catch (const Error& error) {
      throw Error(error.code(), error.what() + problems);
    }
    if (!problems.empty())
      throw Error(ErrorCode::bad_model,
                  fmt::format("{}: the weights do not make this model{}", source_names_, problems));
  }

  // ---- output ----

  void write() {
    std::vector<ReadyTensor> ready;
    std::vector<StoredTensor> stored;
    for (const std::string& name : network_order(config_)) {
      const auto found = tensors_.find(name);
      if (found == tensors_.end()) continue;  // fc6 and fc7 of a backbone without them
      const SourceTensor& tensor = found->second;
      const bool bias = tensor.shape.size() == 1;
      const DType own = tensor.source_dtype == DType::f64 ? DType::f32 : tensor.source_dtype;
      const DType dtype = bias ? DType::f32 : options_.dtype.value_or(own);
      ready.push_back(make_ready(tensor, dtype, options_.allow_nonfinite));
      stored.push_back(ready.back().stored);
      result_.tensors.push_back(
          {tensor.file, tensor.source_name, name, tensor.shape, tensor.source_dtype, dtype});
      result_.parameters += static_cast<std::int64_t>(stored.back().bytes / size_of(dtype));
    }
    save_model(options_.destination, config_, stored);
    std::error_code error;
    result_.bytes = std::filesystem::file_size(options_.destination, error);
    if (error) result_.bytes = 0;  // a device or pipe has no size
    result_.config = config_;
  }

  const ConvertOptions& options_;
  ConversionResult result_;
  ModelConfig config_;
  bool native_ = false;  // config_ started as a model file's
  std::map<std::string, SourceTensor> tensors_;
  TensorShapes shapes_;
  NameScheme scheme_ = NameScheme::caffe;  // PyTorch's, if any source has it
  std::string scheme_file_;
  std::map<std::string, std::string> facts_;  // beside a checkpoint's weights
  std::set<std::string> foldable_;            // files that may hold a network of torchvision's pixels
  std::vector<NetFacts> nets_;                // of the caffemodels, in order
  std::optional<NetFacts> prototxt_;
  const NetFacts* topology_ = nullptr;  // the network that config_.backbone is of
  std::optional<ImpliedTopology> implied_;
  std::optional<PublishedModel> published_;
  std::set<std::string> missing_;  // keys that only the user can give
  std::string why_missing_;
  bool pixels_unknown_ = false;  // and --input must tell them
  std::string source_names_;
};

}  // namespace

ConversionResult convert(const ConvertOptions& options) { return Conversion(options).run(); }

}  // namespace frcnn
