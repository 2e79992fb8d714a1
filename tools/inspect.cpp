// `frcnn inspect`: what a model file holds, and what running it takes.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "commands.h"
#include "detector/faster_rcnn.h"
#include "frcnn/error.h"
#include "graph/lower.h"
#include "graph/plan.h"
#include "graph/shapes.h"
#include "model_io/atomic_file.h"
#include "model_io/model_file.h"
#include "model_io/safetensors.h"
#include "runtime/device.h"

namespace frcnn {
namespace {

using OrderedJson = nlohmann::ordered_json;

struct InspectOptions {
  std::string model, input, dot;
  bool json = false;
};

struct InputSize {
  std::int64_t height = 0, width = 0;
};

struct LayerRow {
  std::string layer, op, stage, output, shape, implementation;
  std::int64_t parameters = 0;
  double flops = 0;
};

struct Report {
  InputSize input;
  Graph graph;  // as run on the CPU
  Plan plan;
  std::size_t workspace_bytes = 0;  // the largest of a single layer
  std::vector<LayerRow> layers;
  std::int64_t parameters = 0;  // of the whole file
  std::size_t weight_bytes = 0;
  std::set<std::string> weight_types;  // "f16", ... of all tensors
  double flops = 0;
};

constexpr const char* inspect_help =
    "Examples:\n"
    "  frcnn inspect zf.safetensors                    layers, shapes and costs at the model's usual size\n"
    "  frcnn inspect zf.safetensors --input 480x640    the same for a network input 480 high, 640 wide\n"
    "  frcnn inspect zf.safetensors --dot zf.dot && dot -Tsvg zf.dot -o zf.svg\n"
    "\n"
    "Shapes are N x C x H x W (or rows x columns). FLOPs count a multiply-add as two. The memory plan shows "
    "what the\n"
    "activations take in the arena, where buffers that are never alive together share their place.";

InputSize parse_size(const std::string& text) {
  InputSize size;
  const char* const end = text.data() + text.size();
  const auto height = std::from_chars(text.data(), end, size.height);
  const bool has_x =
      height.ec == std::errc() && height.ptr != end && (*height.ptr == 'x' || *height.ptr == 'X');
  const auto width = has_x ? std::from_chars(height.ptr + 1, end, size.width) : height;
  constexpr std::int64_t limit = 1 << 16;
  if (!has_x || width.ec != std::errc() || width.ptr != end || size.height < 1 || size.width < 1 ||
      size.height > limit || size.width > limit) {
    throw CLI::ValidationError("--input", "expected HEIGHTxWIDTH such as 600x1000, got " + text);
  }
  return size;
}

// NHWC inside, but people compare with published N,C,H,W tables.
Shape published_shape(const Shape& shape) {
  return shape.rank == 4 ? Shape{shape[0], shape[3], shape[1], shape[2]} : shape;
}

std::vector<TensorSpec> specs(const Graph& graph, const std::vector<ValueId>& ids) {
  std::vector<TensorSpec> result;
  for (const ValueId id : ids) result.push_back(graph.value(id).spec);
  return result;
}

LayerRow layer_row(const Graph& graph, const Node& node) {
  const std::vector<TensorSpec> in = specs(graph, node.in), out = specs(graph, node.out);
  LayerRow row;
  row.layer = node.layer;
  row.op = name_of(node.op);
  row.stage = stage_names[static_cast<std::size_t>(node.stage)];
  row.output = graph.value(node.out.front()).name;
  row.shape = to_string(published_shape(out.front().shape));
  row.flops = flops(node.op, in, out);
  for (const ValueId id : node.in) {
    if (graph.value(id).role == Role::weight) row.parameters += graph.value(id).spec.shape.elements();
  }
  return row;
}

// Prepares every kernel, because only that tells the workspaces, but packs no weight and runs nothing.
Report examine(const Model& model, InputSize input) {
  GraphRequest request;
  request.source = GraphRequest::Source::blob;
  request.height = input.height;
  request.width = input.width;
  const std::shared_ptr<Device> device = make_cpu_device();
  Report report;
  report.input = input;
  report.graph = lower(build_graph(model, request), device->fusions(), {});
  std::vector<std::size_t> workspaces;
  for (const Node& node : report.graph.nodes()) {
    const std::vector<TensorSpec> in = specs(report.graph, node.in), out = specs(report.graph, node.out);
    const Prepared prepared = device->prepare(node.op, {in, out});
    workspaces.push_back(prepared.workspace_bytes);
    report.workspace_bytes = std::max(report.workspace_bytes, prepared.workspace_bytes);
    LayerRow row = layer_row(report.graph, node);
    row.implementation = prepared.implementation;
    report.flops += row.flops;
    report.layers.push_back(std::move(row));
  }
  report.plan = make_plan(report.graph, workspaces);
  for (const auto& [name, weight] : model.weights.all()) {
    report.parameters += weight.view.shape.elements();
    report.weight_bytes += weight.view.bytes();
    report.weight_types.insert(std::string(name_of(weight.view.dtype)));
  }
  return report;
}

double mib(std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

std::string grouped(std::int64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t i = digits.size(); i > 3; i -= 3)
    digits.insert(digits.begin() + static_cast<std::ptrdiff_t>(i) - 3, ',');
  return digits;
}

const char* kind_name(const ModelConfig& config) {
  return config.kind == ModelKind::detector ? "detector" : "backbone";
}

void print_layers(const Report& report) {
  std::size_t layer = 5, op = 4, shape = 5, parameters = 10;
  for (const LayerRow& row : report.layers) {
    layer = std::max(layer, row.layer.size());
    op = std::max(op, row.op.size());
    shape = std::max(shape, row.shape.size());
    parameters = std::max(parameters, grouped(row.parameters).size());
  }
  fmt::print("{:<{}}  {:<{}}  {:>{}}  {:>{}}  {:>8}  {}\n", "layer", layer, "kind", op, "output", shape,
             "parameters", parameters, "GFLOP", "CPU kernel");
  for (const LayerRow& row : report.layers) {
    fmt::print("{:<{}}  {:<{}}  {:>{}}  {:>{}}  {:>8}  {}\n", row.layer, layer, row.op, op, row.shape, shape,
               row.parameters > 0 ? grouped(row.parameters) : "", parameters,
               row.flops > 0 ? fmt::format("{:.3f}", row.flops / 1e9) : "", row.implementation);
  }
}

void print_metadata(const Model& model, const SafetensorsFile& file) {
  fmt::print("\nConventions\n");
  const OrderedJson config = OrderedJson::parse(config_to_json(model.config));
  for (const auto& [key, value] : config.items()) {
    if (key == "backbone") continue;  // the table above says it better
    fmt::print("  {:<22}{}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  bool any = false;
  for (const auto& [key, value] : file.metadata()) {
    if (key == "frcnn") continue;  // the configuration itself
    if (!any) fmt::print("\nOther metadata\n");
    any = true;
    fmt::print("  {:<22}{}\n", key, value);
  }
}

void print_human(const InspectOptions& options, const Model& model, const SafetensorsFile& file,
                 const Report& report) {
  fmt::print("{}: {} {}, input 1x3x{}x{}\n\n", options.model, kind_name(model.config), model.config.name,
             report.input.height, report.input.width);
  print_layers(report);
  const double saved =
      report.plan.activation_bytes == 0
          ? 0
          : static_cast<double>(report.plan.arena_bytes) / static_cast<double>(report.plan.activation_bytes);
  fmt::print("\nParameters   {} ({:.1f} MiB in the file, {})\n", grouped(report.parameters),
             mib(report.weight_bytes), fmt::join(report.weight_types, " and "));
  fmt::print("Operations   {:.3f} GFLOP per image\n", report.flops / 1e9);
  fmt::print(
      "Memory       arena {:.1f} MiB for {:.1f} MiB of activations ({:.0f} %), {} buffers, largest workspace "
      "{:.1f} MiB\n",
      mib(report.plan.arena_bytes), mib(report.plan.activation_bytes), 100 * saved,
      report.plan.buffers.size(), mib(report.workspace_bytes));
  print_metadata(model, file);
}

OrderedJson to_json(const InspectOptions& options, const Model& model, const SafetensorsFile& file,
                    const Report& report) {
  OrderedJson json;
  json["model"] = options.model;
  json["kind"] = kind_name(model.config);
  json["name"] = model.config.name;
  json["input"] = {report.input.height, report.input.width};
  json["layers"] = OrderedJson::array();
  for (const LayerRow& row : report.layers) {
    json["layers"].push_back({{"layer", row.layer},
                              {"op", row.op},
                              {"stage", row.stage},
                              {"output", row.output},
                              {"shape", row.shape},
                              {"parameters", row.parameters},
                              {"flops", row.flops},
                              {"implementation", row.implementation}});
  }
  json["parameters"] = report.parameters;
  json["weight_bytes"] = report.weight_bytes;
  json["weight_types"] = report.weight_types;
  json["flops"] = report.flops;
  json["memory"] = {{"arena_bytes", report.plan.arena_bytes},
                    {"activation_bytes", report.plan.activation_bytes},
                    {"largest_workspace_bytes", report.workspace_bytes},
                    {"buffers", OrderedJson::array()}};
  for (const Buffer& buffer : report.plan.buffers) {
    json["memory"]["buffers"].push_back({{"name", buffer.name},
                                         {"offset", buffer.offset},
                                         {"bytes", buffer.bytes},
                                         {"first", buffer.first},
                                         {"last", buffer.last}});
  }
  json["config"] = OrderedJson::parse(config_to_json(model.config));
  json["metadata"] = file.metadata();
  return json;
}

int inspect(const InspectOptions& options, InputSize input) {
  const std::shared_ptr<const Model> model = load_model(options.model);
  const std::shared_ptr<const SafetensorsFile> file = SafetensorsFile::open(options.model);
  if (input.height == 0) input = {model->config.short_side, model->config.long_side};
  const Report report = examine(*model, input);
  if (!options.dot.empty()) {
    const std::string dot = to_dot(report.graph);
    write_atomically(options.dot, dot);
  }
  if (options.json) {
    const auto replace = OrderedJson::error_handler_t::replace;
    fmt::print("{}\n", to_json(options, *model, *file, report).dump(1, ' ', false, replace));
  } else {
    print_human(options, *model, *file, report);
  }
  return exit_ok;
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command =
      app.add_subcommand("inspect", "Show a model's layers, costs, memory plan and conventions");
  command->add_option("MODEL", options->model, "A model that `frcnn convert` wrote")
      ->required()
      ->type_name("");
  command
      ->add_option("--input", options->input,
                   "Size of the network's input; default: the model's short x long side")
      ->type_name("HxW");
  command->add_flag("--json", options->json, "Everything as JSON");
  command->add_option("--dot", options->dot, "The graph as it runs, for Graphviz")->type_name("FILE");
  command->footer(inspect_help);
  command->callback([&action, options] {
    const InputSize input = options->input.empty() ? InputSize{} : parse_size(options->input);
    action = [options, input] { return inspect(*options, input); };
  });
}

}  // namespace frcnn
