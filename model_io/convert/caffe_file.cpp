#include "model_io/convert/caffe_file.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "frcnn/error.h"
#include "frcnn_caffe.pb.h"
#include "model_io/convert/wire_reader.h"
#include "model_io/safetensors.h"
#include "model_io/whole_file.h"

namespace frcnn {
namespace {

constexpr std::size_t max_layers = 20'000;  // a layer of two bytes must not cost hundreds each
// Fields at every level and whole numbers, which protobuf makes objects of many times their size in the file;
// weights do not count. The latter is of all layers.
constexpr std::size_t max_fields_per_layer = 5'000, max_fields = 500'000;
constexpr std::size_t max_blobs =
    16;  // of a layer: an empty one takes two bytes in the file and a hundred in memory
constexpr int max_rank = 32;
// Published prototxts have at most some thousand messages in 200 KB; an empty one takes two bytes of text and
// hundreds in memory.
constexpr std::size_t max_prototxt_bytes = 4u << 20;
constexpr int max_prototxt_messages = 20'000;
constexpr int max_prototxt_depth = 32;  // the text parser recurses, into unknown fields too
constexpr std::uint32_t layer_field = 100, old_layer_field = 2, name_field = 1, input_field = 3;

[[noreturn]] void bad(const std::string& source, const std::string& what) {
  throw Error(ErrorCode::bad_file, fmt::format("{}: {}", source, what));
}

// ---- parameters ----

// The number that was meant: the files are written as text, 0.3 is stored as the nearest float, and so is
// what a double of ours was before it was exported.
double meant(float stored) {
  const std::string text = fmt::format("{}", stored);
  double value = stored;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// Height and width of a size that files give as one number, as two numbers in order, or as _h and _w.
template <typename Repeated>
std::array<std::int64_t, 2> extent(const Repeated& both, bool has_h, std::uint32_t h, bool has_w,
                                   std::uint32_t w, std::int64_t fallback, const std::string& where) {
  if (has_h || has_w) return {has_h ? h : fallback, has_w ? w : fallback};
  if (both.size() > 2) throw Error(ErrorCode::bad_file, where + ": more than two spatial dimensions");
  if (both.empty()) return {fallback, fallback};
  return {both.Get(0), both.Get(both.size() - 1)};
}

CaffeConvolution read(const frcnn_caffe::Convolution& p, const std::string& where) {
  CaffeConvolution c;
  c.outputs = p.num_output();
  c.kernel =
      extent(p.kernel_size(), p.has_kernel_h(), p.kernel_h(), p.has_kernel_w(), p.kernel_w(), 0, where);
  c.stride = extent(p.stride(), p.has_stride_h(), p.stride_h(), p.has_stride_w(), p.stride_w(), 1, where);
  c.pad = extent(p.pad(), p.has_pad_h(), p.pad_h(), p.has_pad_w(), p.pad_w(), 0, where);
  c.dilation = extent(p.dilation(), false, 0, false, 0, 1, where);
  c.group = p.group();
  c.bias = p.bias_term();
  return c;
}

CaffePooling read(const frcnn_caffe::Pooling& p) {
  const auto size = [](bool has, std::uint32_t both, bool has_h, std::uint32_t h, bool has_w, std::uint32_t w,
                       std::int64_t fallback) {
    const std::int64_t base = has ? both : fallback;
    return std::array<std::int64_t, 2>{has_h ? h : base, has_w ? w : base};
  };
  CaffePooling c;
  c.method = p.pool() == frcnn_caffe::Pooling::MAX   ? CaffePooling::Method::max
             : p.pool() == frcnn_caffe::Pooling::AVE ? CaffePooling::Method::average
                                                     : CaffePooling::Method::stochastic;
  c.kernel = size(p.has_kernel_size(), p.kernel_size(), p.has_kernel_h(), p.kernel_h(), p.has_kernel_w(),
                  p.kernel_w(), 0);
  c.stride =
      size(p.has_stride(), p.stride(), p.has_stride_h(), p.stride_h(), p.has_stride_w(), p.stride_w(), 1);
  c.pad = size(p.has_pad(), p.pad(), p.has_pad_h(), p.pad_h(), p.has_pad_w(), p.pad_w(), 0);
  const bool floor = p.round_mode() == frcnn_caffe::Pooling::FLOOR || !p.ceil_mode();
  c.rounding = floor ? Rounding::floor : Rounding::ceil;
  c.global = p.global_pooling();
  return c;
}

Lrn read(const frcnn_caffe::Lrn& p) {
  Lrn lrn;
  lrn.region = p.norm_region() == frcnn_caffe::Lrn::WITHIN_CHANNEL ? LrnRegion::within_channel
                                                                   : LrnRegion::across_channels;
  lrn.size = static_cast<int>(std::min<std::uint32_t>(p.local_size(), std::numeric_limits<int>::max()));
  lrn.alpha = p.alpha();
  lrn.beta = p.beta();
  lrn.k = p.k();
  return lrn;
}

// ---- arrays ----

CaffeBlob read(const frcnn_caffe::Blob& p, const std::string& where) {
  CaffeBlob blob;
  if (p.has_shape()) {
    if (p.shape().dim_size() > max_rank)
      throw Error(ErrorCode::bad_file, fmt::format("{}: {} dimensions, at most {} are allowed", where,
                                                   p.shape().dim_size(), max_rank));
    blob.shape.assign(p.shape().dim().begin(), p.shape().dim().end());
  } else {
    blob.shape = {p.num(), p.channels(), p.height(), p.width()};
  }
  const bool wide = p.double_data_size() > 0;
  const std::int64_t stored = wide ? p.double_data_size() : p.data_size();
  std::int64_t wanted = 1;
  std::string text;
  for (const std::int64_t d : blob.shape) {
    text += (text.empty() ? "" : "x") + std::to_string(d);
    if (d < 0 || __builtin_mul_overflow(wanted, d, &wanted)) wanted = -1;
    if (wanted < 0) throw Error(ErrorCode::bad_file, fmt::format("{}: impossible shape {}", where, text));
  }
  if (wanted != stored)
    throw Error(ErrorCode::bad_file, fmt::format("{}: its shape {} needs {} numbers, the file has {}", where,
                                                 text, wanted, stored));
  blob.dtype = wide ? DType::f64 : DType::f32;
  blob.data = wide ? static_cast<const void*>(p.double_data().data()) : p.data().data();
  blob.bytes = static_cast<std::size_t>(stored) * size_of(blob.dtype);
  return blob;
}

// ---- layers ----

// What both layer formats have under the same names.
template <typename Message>
CaffeLayer read_common(const std::shared_ptr<const Message>& p, const std::string& source,
                       std::size_t index) {
  CaffeLayer layer;
  layer.name = p->name();
  const std::string where = layer.name.empty() ? fmt::format("{}: layer {}", source, index)
                                               : fmt::format("{}: {}", source, layer.name);
  if (layer.name.empty()) throw Error(ErrorCode::bad_file, where + " has no name");
  layer.bottoms.assign(p->bottom().begin(), p->bottom().end());
  layer.tops.assign(p->top().begin(), p->top().end());
  for (int i = 0; i < p->blobs_size(); ++i) {
    layer.blobs.push_back(read(p->blobs(i), fmt::format("{} blob {}", where, i)));
    layer.blobs.back().owner = p;
  }
  if (p->has_convolution_param()) layer.convolution = read(p->convolution_param(), where);
  if (p->has_pooling_param()) layer.pooling = read(p->pooling_param());
  if (p->has_lrn_param()) layer.lrn = read(p->lrn_param());
  if (p->has_inner_product_param()) {
    const auto& ip = p->inner_product_param();
    layer.inner_product = CaffeInnerProduct{ip.num_output(), ip.bias_term(), ip.transpose()};
  }
  if (p->has_dropout_param())
    layer.dropout = CaffeDropout{meant(p->dropout_param().dropout_ratio()), p->dropout_param().scale_train()};
  layer.negative_slope = p->relu_param().negative_slope();
  return layer;
}

CaffeLayer read(const std::shared_ptr<const frcnn_caffe::Layer>& p, const std::string& source,
                std::size_t index) {
  CaffeLayer layer = read_common(p, source, index);
  layer.type = p->type();
  if (p->has_roi_pooling_param()) {
    const auto& roi = p->roi_pooling_param();
    layer.roi_pooling = CaffeRoiPooling{roi.pooled_h(), roi.pooled_w(), meant(roi.spatial_scale())};
  }
  if (p->has_power_param()) {
    const auto& power = p->power_param();
    layer.power = CaffePower{meant(power.power()), meant(power.scale()), meant(power.shift())};
  }
  if (p->has_proposal_param()) {
    const auto& proposal = p->proposal_param();
    layer.proposal = CaffeProposal{double(proposal.feat_stride()), double(proposal.base_size()), {}, {}};
    for (const float ratio : proposal.ratio()) layer.proposal->ratios.push_back(meant(ratio));
    for (const float scale : proposal.scale()) layer.proposal->scales.push_back(meant(scale));
  }
  if (p->has_python_param()) {
    const auto& python = p->python_param();
    layer.python = CaffePython{python.module(), python.layer(), python.param_str()};
  }
  return layer;
}

CaffeLayer read(const std::shared_ptr<const frcnn_caffe::OldLayer>& p, const std::string& source,
                std::size_t index) {
  CaffeLayer layer = read_common(p, source, index);
  switch (p->type()) {
    case frcnn_caffe::OldLayer::CONVOLUTION:
      layer.type = "Convolution";
      break;
    case frcnn_caffe::OldLayer::POOLING:
      layer.type = "Pooling";
      break;
    case frcnn_caffe::OldLayer::RELU:
      layer.type = "ReLU";
      break;
    case frcnn_caffe::OldLayer::INNER_PRODUCT:
      layer.type = "InnerProduct";
      break;
    case frcnn_caffe::OldLayer::DROPOUT:
      layer.type = "Dropout";
      break;
    case frcnn_caffe::OldLayer::SPLIT:
      layer.type = "Split";
      break;
    default:
      layer.type = frcnn_caffe::OldLayer::Type_Name(p->type());  // "LRN" is the same in both
  }
  return layer;
}

// ---- binary ----

std::size_t whole_numbers(std::span<const std::byte> packed) {  // each ends with a byte below 0x80
  return static_cast<std::size_t>(
      std::count_if(packed.begin(), packed.end(), [](std::byte b) { return b < std::byte{0x80}; }));
}

// Walks what protobuf will parse, before it allocates: every field of a message of this type takes one of
// `left`, and so does every number of a packed one. Descends where the description does.
void take_fields(std::span<const std::byte> bytes, std::size_t offset,
                 const google::protobuf::Descriptor& type, const std::string& where, std::size_t& left) {
  using google::protobuf::FieldDescriptor;
  const bool in_blob = &type == frcnn_caffe::Blob::descriptor();
  WireReader fields(bytes, offset, where);
  WireField field;
  std::size_t index = 0;  // among the blobs, the only messages that repeat
  while (fields.next(field)) {
    const FieldDescriptor* const known = type.FindFieldByNumber(static_cast<int>(field.number));
    const auto stored = known != nullptr ? known->cpp_type() : FieldDescriptor::CPPTYPE_STRING;
    const WireType unpacked =
        stored == FieldDescriptor::CPPTYPE_DOUBLE ? WireType::fixed64 : WireType::fixed32;
    const bool real = stored == FieldDescriptor::CPPTYPE_FLOAT || stored == FieldDescriptor::CPPTYPE_DOUBLE;
    if (in_blob && real && (field.type == WireType::bytes || field.type == unpacked)) continue;  // weights
    std::size_t taken = 1;
    if (known != nullptr && known->is_packable() && field.type == WireType::bytes)
      taken += real ? field.bytes.size() / sizeof(float) : whole_numbers(field.bytes);
    if (taken > left)
      throw Error(ErrorCode::bad_file,
                  fmt::format("{} has more than {} fields and numbers", where, max_fields_per_layer));
    left -= taken;
    if (stored != FieldDescriptor::CPPTYPE_MESSAGE || field.type != WireType::bytes) continue;
    const std::string part = known->is_repeated() ? fmt::format("blob {}", index++) : known->name();
    take_fields(field.bytes, field.offset, *known->message_type(), fmt::format("{}, {}", where, part), left);
  }
}

template <typename Message>
CaffeLayer parse_layer(std::span<const std::byte> bytes, std::size_t offset, const std::string& source,
                       std::size_t index, std::size_t& fields_left) {
  const auto where = [&](const std::string& name) {
    return fmt::format("layer {}{} at bytes {} to {}", index,
                       name.empty() ? "" : " (" + printable(name) + ")", offset, offset + bytes.size());
  };
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()))
    bad(source, where("") + " is larger than 2 GiB, the format's limit");
  WireReader fields(bytes, offset, source);
  WireField field;
  std::string name;
  for (std::size_t blobs = 0; fields.next(field);) {
    if (field.number == static_cast<std::uint32_t>(Message::kNameFieldNumber))
      name.assign(reinterpret_cast<const char*>(field.bytes.data()), field.bytes.size());
    if (field.number == static_cast<std::uint32_t>(Message::kBlobsFieldNumber) && ++blobs > max_blobs)
      bad(source, fmt::format("{} has more than {} blobs", where(name), max_blobs));
  }
  std::size_t layer_left = max_fields_per_layer;
  take_fields(bytes, offset, *Message::descriptor(), source + ": " + where(name), layer_left);
  const std::size_t count = max_fields_per_layer - layer_left;
  if (count > fields_left)
    bad(source, fmt::format("more than {} fields and numbers in all layers", max_fields));
  fields_left -= count;
  auto message = std::make_shared<Message>();
  if (!message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    bad(source, where(message->name()) + " is damaged");
  message->DiscardUnknownFields();  // stored gradients, fillers: as large as the weights, and never read
  return read(std::shared_ptr<const Message>(std::move(message)), source, index);
}

// ---- text ----

class LineOfFirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, google::protobuf::io::ColumnNumber column, const std::string& message) override {
    if (text.empty()) text = fmt::format("line {}, column {}: {}", line + 1, column + 1, message);
  }
  void AddWarning(int, google::protobuf::io::ColumnNumber, const std::string&) override {}  // unknown fields
  std::string text;
};

// Counts before the parser makes objects: how many messages and lists there are, and how deep.
void check_messages(std::string_view text, const std::string& source) {
  int messages = 0, depth = 0, line = 1;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (c == '#') {
      while (i + 1 < text.size() && text[i + 1] != '\n') ++i;
    } else if (c == '"' || c == '\'') {
      for (++i; i < text.size() && text[i] != c && text[i] != '\n'; ++i)
        if (text[i] == '\\') ++i;
      if (i < text.size() && text[i] == '\n') --i;  // an unclosed quote; the parser reports it
    } else if (c == '{' || c == '<' || c == '[') {
      if (++messages > max_prototxt_messages)
        bad(source, fmt::format("line {}: more than {} messages", line, max_prototxt_messages));
      if (++depth > max_prototxt_depth)
        bad(source, fmt::format("line {}: nested more than {} deep", line, max_prototxt_depth));
    } else if (c == '}' || c == '>' || c == ']') {
      --depth;
    }
  }
}

}  // namespace

CaffeNet parse_caffemodel(std::span<const std::byte> bytes, const std::string& source) {
  CaffeNet net;
  WireReader fields(bytes, 0, source);
  WireField field;
  std::size_t fields_left = max_fields;
  while (fields.next(field)) {
    if (field.type != WireType::bytes) continue;
    const std::string text(
        reinterpret_cast<const char*>(field.bytes.data()),
        field.number == name_field || field.number == input_field ? field.bytes.size() : 0);
    if (field.number == name_field) net.name = text;
    if (field.number == input_field && net.inputs.size() < max_layers) net.inputs.push_back(text);
    if (field.number != layer_field && field.number != old_layer_field) continue;
    const std::size_t index = net.layers.size();
    if (index == max_layers) bad(source, fmt::format("more than {} layers", max_layers));
    if (field.number == layer_field) {
      net.layers.push_back(
          parse_layer<frcnn_caffe::Layer>(field.bytes, field.offset, source, index, fields_left));
    } else {
      net.layers.push_back(
          parse_layer<frcnn_caffe::OldLayer>(field.bytes, field.offset, source, index, fields_left));
      net.old_format = true;
    }
  }
  if (net.layers.empty()) bad(source, "no layers: not a Caffe model, or an empty one");
  return net;
}

CaffeNet parse_prototxt(std::string_view text, const std::string& source) {
  if (text.size() > max_prototxt_bytes)
    bad(source, fmt::format("{} bytes; a prototxt has at most {}", text.size(), max_prototxt_bytes));
  if (text.find('\0') != std::string_view::npos) bad(source, "not text, so not a prototxt");
  check_messages(text, source);
  frcnn_caffe::Net message;
  LineOfFirstError errors;
  google::protobuf::TextFormat::Parser parser;
  parser.AllowUnknownField(true);
  parser.RecordErrorsTo(&errors);
  google::protobuf::io::ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  if (!parser.Parse(&stream, &message)) bad(source, errors.text.empty() ? "not a prototxt" : errors.text);

  CaffeNet net;
  net.name = message.name();
  net.inputs.assign(message.input().begin(), message.input().end());
  std::size_t index = 0;
  for (auto& layer : *message.mutable_layers())
    net.layers.push_back(
        read(std::make_shared<const frcnn_caffe::OldLayer>(std::move(layer)), source, index++));
  net.old_format = !net.layers.empty();
  for (auto& layer : *message.mutable_layer())
    net.layers.push_back(read(std::make_shared<const frcnn_caffe::Layer>(std::move(layer)), source, index++));
  if (net.layers.empty()) bad(source, "no layers: not a network's prototxt");
  return net;
}

CaffeNet read_prototxt(const std::string& path) {
  return parse_prototxt(read_whole_file(path, max_prototxt_bytes), path);
}

}  // namespace frcnn
