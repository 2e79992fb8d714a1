// `frcnn diff`: where do two runs of a network part ways?
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "commands.h"
#include "model_io/atomic_file.h"
#include "model_io/compare.h"

namespace frcnn {
namespace {

struct DiffOptions {
  std::string a, b, json;
  Tolerance tolerance;
};

using Json = nlohmann::ordered_json;

const char* word(Verdict verdict) {
  return verdict == Verdict::same ? "OK" : verdict == Verdict::differs ? "DIFF" : "SHAPE";
}

std::string index_text(const std::vector<std::int64_t>& at) {
  return at.empty() ? "" : fmt::format("[{}]", fmt::join(at, ","));
}

// Names come from files: nothing in them may reach the terminal as a control code.
std::string plain(const std::string& name) {
  const std::string quoted = printable(name);
  return quoted.substr(1, quoted.rfind('\'') - 1);
}

std::string remark(const TensorDifference& t) {
  if (t.verdict == Verdict::shape_differs)
    return fmt::format("shapes {} and {}", shape_string(t.shape_a), shape_string(t.shape_b));
  std::string order;
  if (t.reordered > 0) order = fmt::format("{} rows of equal class and score in another order", t.reordered);
  if (t.other_of_tie > 0)
    order += fmt::format("{}{} from another RoI of just the same score", order.empty() ? "" : ", ",
                         t.other_of_tie);
  if (t.verdict == Verdict::same) {
    const std::string worst =
        t.worst.empty() ? "" : fmt::format("{} allowed {:.3g}", index_text(t.worst), t.allowed);
    return worst + (worst.empty() || order.empty() ? "" : "; ") + order;
  }
  std::string text = fmt::format("{} {:.9g} against {:.9g}; {} of {} beyond {:.3g}", index_text(t.worst),
                                 t.worst_a, t.worst_b, t.beyond, t.elements, t.allowed);
  if (t.nonfinite > 0) text += fmt::format(", {} of them NaN or infinite in one file", t.nonfinite);
  if (!order.empty()) text += "; " + order;
  return text;
}

std::string table(const Comparison& result, const DiffOptions& options) {
  std::size_t width = 6;
  for (const TensorDifference& t : result.tensors) width = std::max(width, plain(t.name).size());
  std::string text = fmt::format("{:<{}}  {:<18} {:>10} {:>10}  {:<5}  {}\n", "tensor", width, "shape",
                                 "max abs", "rel L2", "", "worst element");
  for (const TensorDifference& t : result.tensors) {
    const bool sized = t.verdict != Verdict::shape_differs;
    text += fmt::format("{:<{}}  {:<18} {:>10} {:>10}  {:<5}  {}\n", plain(t.name), width,
                        shape_string(t.shape_a), sized ? fmt::format("{:.3g}", t.max_abs) : "-",
                        sized ? fmt::format("{:.3g}", t.relative_l2) : "-", word(t.verdict), remark(t));
    while (text[text.size() - 2] == ' ') text.erase(text.size() - 2, 1);
  }
  for (const auto& [names, file] :
       {std::pair{&result.only_a, &options.a}, std::pair{&result.only_b, &options.b}}) {
    if (names->empty()) continue;
    text += fmt::format("only in {}:", *file);
    for (const std::string& name : *names) text += " " + plain(name);
    text += "\n";
  }
  const auto differing = std::count_if(result.tensors.begin(), result.tensors.end(),
                                       [](const TensorDifference& t) { return t.verdict != Verdict::same; });
  if (result.tensors.empty()) {
    text += "DIFFERENT: the files have no tensor in common\n";
  } else if (differing == 0) {
    text += fmt::format("SAME: {} tensors, {} elements within {:g} + {:g} * max|b|\n", result.tensors.size(),
                        result.elements, options.tolerance.absolute, options.tolerance.relative);
  } else {
    text += fmt::format("DIFFERENT: {} of {} tensors; the first diverging stage is {}\n", differing,
                        result.tensors.size(), plain(result.first_difference));
  }
  return text;
}

// JSON has no NaN and no infinity: null stands for both.
Json number(double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); }

std::string to_json(const Comparison& result, const DiffOptions& options) {
  Json document{
      {"a", options.a},
      {"b", options.b},
      {"rtol", options.tolerance.relative},
      {"atol", options.tolerance.absolute},
      {"same", result.same()},
      {"first_difference", result.first_difference.empty() ? Json(nullptr) : Json(result.first_difference)},
      {"elements", result.elements},
      {"tensors", Json::array()},
      {"only_a", result.only_a},
      {"only_b", result.only_b}};
  for (const TensorDifference& t : result.tensors) {
    Json entry{{"name", t.name},
               {"verdict", word(t.verdict)},
               {"dtype_a", name_of(t.dtype_a)},
               {"dtype_b", name_of(t.dtype_b)},
               {"shape_a", t.shape_a},
               {"shape_b", t.shape_b}};
    if (t.verdict != Verdict::shape_differs) {
      entry["max_abs"] = number(t.max_abs);
      entry["relative_l2"] = number(t.relative_l2);
      entry["allowed"] = number(t.allowed);
      entry["beyond"] = t.beyond;
      entry["nonfinite"] = t.nonfinite;
      entry["reordered"] = t.reordered;
      entry["other_of_tie"] = t.other_of_tie;
      entry["worst"] = t.worst;
      entry["worst_a"] = number(t.worst_a);
      entry["worst_b"] = number(t.worst_b);
    }
    document["tensors"].push_back(std::move(entry));
  }
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

int diff(const DiffOptions& options) {
  const auto a = SafetensorsFile::open(options.a), b = SafetensorsFile::open(options.b);
  const Comparison result = compare_tensors(*a, *b, options.tolerance);
  if (options.json == "-") {  // then standard output is the JSON alone
    const std::string text = to_json(result, options);
    std::fwrite(text.data(), 1, text.size(), stdout);
  } else {
    const std::string text = table(result, options);
    std::fwrite(text.data(), 1, text.size(), stdout);
    if (!options.json.empty()) {
      const std::string json = to_json(result, options);
      write_atomically(options.json, json);
    }
  }
  return result.same() ? exit_ok : exit_bad_input;
}

// What is wrong with the text of a tolerance; empty: nothing.
std::string tolerance_problem(const std::string& text) {
  double value = -1;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && at == end && std::isfinite(value) && value >= 0) return "";
  return "must be a finite number of at least 0, it is " + printable(text);
}

}  // namespace

void add_diff(CLI::App& app, Action& action) {
  auto options = std::make_shared<DiffOptions>();
  CLI::App* command = app.add_subcommand("diff", "Compare two files of tensors, stage by stage");
  command->add_option("A", options->a, "Tensors to judge, e.g. written by `frcnn run` or `detect --dump`")
      ->required()
      ->type_name("A.safetensors");
  command->add_option("B", options->b, "Tensors to judge them by")->required()->type_name("B.safetensors");
  command
      ->add_option("--rtol", options->tolerance.relative, "Allowed |a-b| as a part of max|b| over the tensor")
      ->check(CLI::Validator(tolerance_problem, "", "tolerance"))
      ->type_name("NUMBER")
      ->capture_default_str();
  command->add_option("--atol", options->tolerance.absolute, "Allowed |a-b| on top of that")
      ->check(CLI::Validator(tolerance_problem, "", "tolerance"))
      ->type_name("NUMBER")
      ->capture_default_str();
  command
      ->add_option("--json", options->json,
                   "Write the comparison as JSON; - is standard output, without the table")
      ->type_name("FILE|-");
  command->footer(
      "Tensors of equal name are compared in network order (metadata entry \"order\" of A or B, else the "
      "order in A).\n"
      "An element agrees when |a-b| <= atol + rtol * max|b|; integers must be equal; NaN agrees with NaN "
      "only. Tensors\n"
      "that only one file has are listed and judged no further. Exit code: 0 the same, 1 different or "
      "unreadable.\n"
      "Rows of `detections` with equal class and score have no order: they are paired by their boxes. Of two "
      "RoIs that\n"
      "score just the same suppression may keep either: where B has cls_prob and pred_boxes, the box of the "
      "other one\n"
      "agrees as well. The table says where this happened.\n"
      "\n"
      "Example: frcnn run zf.safetensors blob.safetensors ours.safetensors && frcnn diff ours.safetensors "
      "reference.safetensors");
  command->callback([options, &action] { action = [options] { return diff(*options); }; });
}

}  // namespace frcnn
