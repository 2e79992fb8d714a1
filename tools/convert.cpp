// `frcnn convert`: other programs' weights become a model file.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "commands.h"
#include "frcnn/error.h"
#include "model_io/atomic_file.h"
#include "model_io/convert/convert.h"

namespace frcnn {
namespace {

struct Options {
  ConvertOptions convert;
  std::vector<std::string> files;  // sources, then the destination
  std::vector<std::string> sets;   // key=value
  std::string dtype, input, json;
};

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("{}", fmt::join(shape, "x"));
}

std::string type_text(const ConvertedTensor& tensor) {
  const std::string to(name_of(tensor.dtype));
  return tensor.source_dtype == tensor.dtype ? to : fmt::format("{} -> {}", name_of(tensor.source_dtype), to);
}

// Source tensor, our tensor, shape, type; the file too where there are several.
std::string table(const ConversionResult& result) {
  const bool several = result.sources.size() > 1;
  std::vector<std::vector<std::string>> rows{{"source", "tensor", "shape", "type"}};
  for (const ConvertedTensor& tensor : result.tensors) {
    std::string source = tensor.source.empty() ? "(zeros: no bias)" : tensor.source;
    if (several) source = tensor.file + ": " + source;
    rows.push_back({source, tensor.name, shape_text(tensor.shape), type_text(tensor)});
  }
  std::size_t width[3] = {0, 0, 0};
  for (const auto& row : rows)
    for (std::size_t c = 0; c < 3; ++c) width[c] = std::max(width[c], row[c].size());
  std::string text;
  for (const auto& row : rows)
    text += fmt::format("{:<{}}  {:<{}}  {:<{}}  {}\n", row[0], width[0], row[1], width[1], row[2], width[2],
                        row[3]);
  return text;
}

std::string summary(const ConversionResult& result, const std::string& destination) {
  std::string text;
  const auto list = [&text](const char* title, const std::vector<std::string>& lines) {
    for (const std::string& line : lines) text += fmt::format("{}: {}\n", title, line);
  };
  list("implied", result.implied);
  list("assumed", result.assumed);
  list("ignored", result.ignored);
  const ModelConfig& config = result.config;
  for (const ConvertedSource& source : result.sources)
    text += fmt::format("read {} ({})\n", source.file, source.format);
  text += fmt::format("wrote {}: ", destination);
  if (config.kind == ModelKind::detector) {
    const auto first = config.classes.begin() + 1;  // behind the background
    const auto shown = std::min<std::ptrdiff_t>(config.classes.end() - first, 8);
    text += fmt::format("detector {}, {} classes ({}{})", config.name, config.classes.end() - first,
                        fmt::join(first, first + shown, ", "),
                        first + shown == config.classes.end() ? "" : ", ...");
  } else {
    text += fmt::format("backbone {}, not a detector: it can start a training", config.name);
  }
  return text + fmt::format("; {} parameters in {} tensors, {} bytes\n", result.parameters,
                            result.tensors.size(), result.bytes);
}

nlohmann::ordered_json to_json(const ConversionResult& result, const std::string& destination) {
  nlohmann::ordered_json sources = nlohmann::ordered_json::array(), tensors = nlohmann::ordered_json::array();
  for (const ConvertedSource& source : result.sources)
    sources.push_back({{"file", source.file}, {"format", source.format}});
  for (const ConvertedTensor& tensor : result.tensors) {
    tensors.push_back(
        {{"file", tensor.file},
         {"source", tensor.source.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(tensor.source)},
         {"tensor", tensor.name},
         {"shape", tensor.shape},
         {"source_dtype", name_of(tensor.source_dtype)},
         {"dtype", name_of(tensor.dtype)}});
  }
  return {{"model", destination},
          {"kind", result.config.kind == ModelKind::detector ? "detector" : "backbone"},
          {"name", result.config.name},
          {"classes", result.config.classes},
          {"parameters", result.parameters},
          {"bytes", result.bytes},
          {"sources", sources},
          {"tensors", tensors},
          {"implied", result.implied},
          {"assumed", result.assumed},
          {"ignored", result.ignored}};
}

int run(Options options) {
  ConvertOptions& convert_options = options.convert;
  convert_options.sources.assign(options.files.begin(), options.files.end() - 1);
  convert_options.destination = options.files.back();
  for (const std::string& set : options.sets) {
    const std::size_t equals = set.find('=');
    convert_options.sets.emplace_back(set.substr(0, equals), set.substr(equals + 1));
  }
  const std::map<std::string, DType> types{{"fp32", DType::f32}, {"fp16", DType::f16}, {"bf16", DType::bf16}};
  if (!options.dtype.empty()) convert_options.dtype = types.at(options.dtype);

  if (!options.input.empty())
    convert_options.input = options.input == "torchvision" ? InputForm::torchvision : InputForm::caffe;

  const ConversionResult result = convert(convert_options);
  const std::string json = to_json(result, convert_options.destination)
                               .dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
                           "\n";
  if (options.json != "-") fmt::print("{}{}", table(result), summary(result, convert_options.destination));
  if (options.json == "-") {
    fmt::print("{}", json);
  } else if (!options.json.empty()) {
    write_atomically(options.json, json);
  }
  return exit_ok;
}

}  // namespace

void add_convert(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("convert", "Make a model file from another program's weights");
  command
      ->add_option(
          "FILES", options->files,
          "SOURCE... MODEL: files to convert, then the model file to write. Sources are "
          "caffemodels (old V1 layers too), PyTorch checkpoints (.pth, .pt), safetensors, or model files "
          "of our own; later ones add to and replace earlier ones")
      ->required()
      ->expected(2, -1)
      ->type_name("");
  command
      ->add_option("--prototxt", options->convert.prototxt,
                   "The network's prototxt (test or train form): strides, pads, anchors, pooling and dropout "
                   "are taken "
                   "from it, whatever the source says or implies")
      ->type_name("FILE");
  command
      ->add_option("--classes", options->convert.classes,
                   "voc, coco, or a file with one class name per line (the background may stand first)")
      ->type_name("voc|coco|FILE");
  command
      ->add_option("--dtype", options->dtype,
                   "Type of the stored weights; the source's if not given. Biases are fp32")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"fp32", "fp16", "bf16"}));
  command
      ->add_option(
          "--input", options->input,
          "Pixels that the source's network reads: caffe (blue, green, red in 0..255 minus the mean), or "
          "torchvision (red, green, blue in 0..1, normalised), which is folded into the first convolution")
      ->type_name("FORM")
      ->check(CLI::IsMember({"caffe", "torchvision"}));
  command
      ->add_option(
          "--set", options->sets,
          "Override one convention, e.g. --set max_detections=-1 --set anchor_scales=4,8,16,32; may be "
          "repeated. An unknown key is answered with the list of keys")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->check(CLI::Validator(
          [](const std::string& set) {
            return set.find('=') == std::string::npos || set.front() == '=' ? "expected KEY=VALUE, got " + set
                                                                            : std::string();
          },
          ""));
  command
      ->add_option("--json", options->json,
                   "Write the table and summary as JSON; - writes it to standard output instead")
      ->type_name("FILE");
  command->add_flag("--allow-nonfinite", options->convert.allow_nonfinite,
                    "Convert NaN and infinite weights too");
  command->footer(
      "Formats are told from content. Conventions that neither the files nor --prototxt give are assumed "
      "only where all\n"
      "weights have a published model's shapes, and are then printed as assumed; otherwise the message tells "
      "what to give.\n"
      "ImageNet files (convolutions and fc6, fc7) become a backbone model. Tensors of PyTorch files and "
      "safetensors are\n"
      "called as Caffe's layers (conv1_1.weight), as torchvision's VGG (features.0.weight) or as\n"
      "jwyang/faster-rcnn.pytorch's (RCNN_base.0.weight); nothing in a checkpoint is ever executed.\n\n"
      "Examples:\n"
      "  frcnn convert ZF_faster_rcnn_final.caffemodel zf.safetensors --classes voc\n"
      "  frcnn convert faster_rcnn_1_6_10021.pth vgg16.safetensors --set roi_op=pool\n"
      "  frcnn convert vgg16-397923af.pth imagenet.safetensors --input torchvision\n"
      "  frcnn convert weights.safetensors cells.safetensors --prototxt test.prototxt --classes cells.txt\n"
      "  frcnn convert zf.safetensors zf_half.safetensors --dtype fp16 --set score_threshold=0.1");
  command->callback([options, &action] {
    // A forgotten MODEL, or a source behind it: the last source would be replaced.
    const std::filesystem::path last = options->files.back();
    for (const char* other : {".caffemodel", ".prototxt", ".pth", ".pt"})
      if (last.extension() == other)
        throw CLI::ValidationError(
            last.string(),
            fmt::format("the last file is written, as a model file (.safetensors), which no {} is", other));
    action = [options] { return run(*options); };
  });
}

}  // namespace frcnn
