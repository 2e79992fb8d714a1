// Writes a model as Caffe's two files, for other programs that read them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "detector/config.h"

namespace frcnn {

// The network as the release's test.prototxt has it (proposals by its Python layer), or with OpenCV's
// proposal and detection layers, which its DNN module runs whole.
enum class CaffeForm : std::uint8_t { py_faster_rcnn, opencv };

struct ExportOptions {
  std::string model;        // a model file of ours
  std::string destination;  // the .caffemodel; the prototxt is written beside it under the same name
  CaffeForm form = CaffeForm::py_faster_rcnn;
};

struct ExportResult {
  ModelConfig config;
  std::string prototxt;    // path
  std::size_t layers = 0;  // of the network
  std::int64_t parameters = 0;
  std::uintmax_t bytes = 0;  // of the caffemodel
  std::vector<std::string>
      left_out;  // conventions that the files cannot hold, as key=value for --set of convert
  std::vector<std::string> remarks;  // what other readers would do differently, one sentence each
};

// Weights are written as float32, which holds every f16 and bf16 exactly; converting the files again (with
// left_out as
// --set and, for f16 and bf16, the type) gives the model again, bit for bit. Both files appear whole or not
// at all; the prototxt first. Throws Error(io), Error(bad_file), Error(bad_model), and Error(unsupported) for
// a model that Caffe's layers cannot express (RoI align) or whose weights exceed the 2 GiB of a protocol
// buffer. Safe to call from several threads.
ExportResult export_caffe(const ExportOptions& options);

// "out/zf.caffemodel" -> "out/zf.prototxt"; without that ending, the name with ".prototxt" behind it.
std::string prototxt_beside(const std::string& caffemodel);

}  // namespace frcnn
