// The one table of names: how the layers of published PyTorch code are called here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace frcnn {

// caffe: the published layer names, which are ours. torchvision: VGG's `features.N` and `classifier.N`.
// jwyang: jwyang/faster-rcnn.pytorch's `RCNN_base.N`, `RCNN_rpn.RPN_Conv` and so on.
enum class NameScheme : std::uint8_t { caffe, torchvision, jwyang };

struct TranslatedName {
  std::string source;  // "RCNN_base.0.weight"
  std::string name;    // "conv1_1.weight"
};

struct SchemeNames {
  NameScheme scheme = NameScheme::caffe;
  std::vector<TranslatedName> tensors;  // in the order given
};

// Finds the scheme by the names and translates all of them; names that are not in the table stay as they are.
// The convolutions `features.N` of a plain VGG lie two apart within a group and three apart over a pool,
// which is how groups are told. Throws Error(unsupported), with `source` in front, for batch normalisation
// and other spacings.
SchemeNames scheme_names(const std::vector<std::string>& tensors, const std::string& source);

// The program that the scheme belongs to, for people.
const char* program_of(NameScheme scheme);

}  // namespace frcnn
