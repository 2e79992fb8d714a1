// The `param_str` of a Python layer: the few forms of YAML that published networks use.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace frcnn {

struct ParamStr {
  // Each key's numbers; a single number is a list of one.
  std::map<std::string, std::vector<double>> numbers;
};

// Reads `'feat_stride': 16 \n'scales': !!python/tuple [4, 8]`: one or more `key: value` pairs on lines of
// their own or in braces, keys quoted or bare, values a number, a list in brackets or parentheses, or a list
// of `- number` lines; a tag before a list is skipped. Values that are no numbers (true, a word) make an
// empty list. `where` names the layer in messages. Throws Error(bad_file) with the position.
ParamStr parse_param_str(std::string_view text, const std::string& where);

}  // namespace frcnn
