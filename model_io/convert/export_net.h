// A model's network in Caffe's description: layers and parameters, no weights.
#pragma once

#include "detector/config.h"
#include "frcnn_caffe.pb.h"
#include "model_io/convert/export.h"
#include "model_io/convert/implied.h"

namespace frcnn {

// `shapes` are those of the model's tensors, which fit `config` (check_model). Layers with weights carry the
// names that the tensors have. The network of a backbone ends behind its last convolution; fc6 and fc7 follow
// as layers without inputs where the model has them, to be written to binary files only. Throws
// Error(unsupported), starting with `source`, for what the form has no layer for.
frcnn_caffe::Net caffe_net_of(const ModelConfig& config, const TensorShapes& shapes, CaffeForm form,
                              const std::string& source);

}  // namespace frcnn
