// `frcnn export`: a model file becomes Caffe's two files.
#include <fmt/format.h>

#include <map>
#include <memory>
#include <string>

#include "commands.h"
#include "model_io/convert/export.h"

namespace frcnn {
namespace {

struct Options {
  ExportOptions export_to;
  std::string form = "py-faster-rcnn";
};

int run(Options options) {
  options.export_to.form = options.form == "opencv" ? CaffeForm::opencv : CaffeForm::py_faster_rcnn;
  const ExportResult result = export_caffe(options.export_to);
  for (const std::string& line : result.left_out) fmt::print("left out: {}\n", line);
  for (const std::string& line : result.remarks) fmt::print("remark: {}\n", line);
  fmt::print("wrote {}: {} layers\n", result.prototxt, result.layers);
  fmt::print("wrote {}: {} {}, {} parameters, {} bytes\n", options.export_to.destination,
             result.config.kind == ModelKind::detector ? "detector" : "backbone", result.config.name,
             result.parameters, result.bytes);
  return exit_ok;
}

}  // namespace

void add_export(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("export", "Write a model as Caffe's files, for other programs");
  command->add_option("MODEL", options->export_to.model, "Model file (see `frcnn convert`)")
      ->required()
      ->type_name("");
  command
      ->add_option("OUT", options->export_to.destination,
                   "The .caffemodel to write; the prototxt is written beside it")
      ->required()
      ->type_name("");
  command
      ->add_option("--form", options->form,
                   "py-faster-rcnn: the release's test network, proposals by its Python layer. opencv: the "
                   "proposal and detection layers of OpenCV's DNN module")
      ->type_name("FORM")
      ->check(CLI::IsMember({"py-faster-rcnn", "opencv"}))
      ->capture_default_str();
  command->footer(
      "Weights are written in single precision, bit for bit. `left out` lists the conventions that a Caffe "
      "network\n"
      "has no place for, as --set of `frcnn convert` takes them.\n\n"
      "Example:\n"
      "  frcnn export weights/bccd_zf.safetensors bccd.caffemodel --form opencv");
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace frcnn
