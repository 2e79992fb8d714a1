// Whole networks through the command: convert, run and detect against the published code's outputs, stage by
// stage.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "catch.h"
#include "cli/run_tool.h"
#include "detector/faster_rcnn.h"
#include "golden/golden.h"
#include "model_io/image_file.h"
#include "model_io/model_file.h"

using namespace frcnn;
namespace fs = std::filesystem;
using golden::Tally;
using tool::TempDir;

namespace {

// The tolerances that the reference files state.
constexpr double data_tolerance = 1e-3, top_tolerance = 1e-4, roi_tolerance = 2e-2, prob_tolerance = 1e-4,
                 box_tolerance = 5e-2;

std::vector<fs::path> entries(const fs::path& folder, const std::string& pattern) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (std::regex_match(entry.path().filename().string(), std::regex(pattern)))
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  if (found.empty()) FAIL("nothing in " << folder << " is called " << pattern);
  return found;
}

tool::Result run_ok(const std::vector<std::string>& arguments) {
  const tool::Result result = tool::run(arguments);
  std::string line = "frcnn";
  for (const std::string& word : arguments) line += " " + word;
  INFO(line << "\n" << result.err);
  REQUIRE(result.code == 0);
  return result;
}

double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double v : values) most = std::max(most, std::abs(v));
  return most;
}

// ---- from a reference tensor's name to what we have of it ----

struct Tensor {
  std::vector<std::int64_t> shape;
  std::vector<double> values;
};

Tensor load(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor& stored = golden::tensor(file, name);
  return {stored.shape, golden::values<double>(stored)};
}

std::vector<std::string> network_order(const SafetensorsFile& file) {
  return golden::metadata(file, "order").get<std::vector<std::string>>();
}

// The pooled RoIs' name differs between models; the references call it pool5 in every derived tensor.
std::string pooled_top(const SafetensorsFile& ours) {
  const auto order = network_order(ours);
  const auto fc6 = std::find(order.begin(), order.end(), "fc6");
  REQUIRE(fc6 != order.end());
  for (auto it = fc6; it != order.begin();) {
    if (golden::tensor(ours, *--it).shape.size() == 4) return *it;
  }
  FAIL("no pooled RoIs before fc6");
  return "";
}

Tensor strided(const Tensor& from, std::int64_t step) {
  REQUIRE(from.shape.size() == 4);
  const std::int64_t height = from.shape[2], width = from.shape[3];
  Tensor to{{from.shape[0], from.shape[1], (height + step - 1) / step, (width + step - 1) / step}, {}};
  for (std::int64_t p = 0; p < from.shape[0] * from.shape[1]; ++p)
    for (std::int64_t y = 0; y < height; y += step)
      for (std::int64_t x = 0; x < width; x += step)
        to.values.push_back(from.values[static_cast<std::size_t>((p * height + y) * width + x)]);
  return to;
}

Tensor first_rows(const Tensor& from, std::int64_t rows) {
  Tensor to = from;
  to.shape[0] = std::min(rows, from.shape[0]);
  to.values.resize(from.values.size() / static_cast<std::size_t>(from.shape[0]) *
                   static_cast<std::size_t>(to.shape[0]));
  return to;
}

Tensor row_sums(const Tensor& from, std::int64_t rows) {
  Tensor to{{rows}, {}};
  const std::size_t row = from.values.size() / static_cast<std::size_t>(rows);
  for (std::size_t i = 0; i < from.values.size(); i += row) {
    to.values.push_back(std::accumulate(from.values.begin() + static_cast<std::ptrdiff_t>(i),
                                        from.values.begin() + static_cast<std::ptrdiff_t>(i + row), 0.0));
  }
  return to;
}

// Our counterpart of a reference tensor; shape empty if we have none.
Tensor counterpart(const SafetensorsFile& ours, const std::string& name, const Tensor& want,
                   std::string& base) {
  static const std::regex derived(R"((.+)_(stride|first|sum)(\d*))");
  std::smatch match;
  base = name == "scores" ? "cls_prob" : name;
  if (ours.find(base)) return load(ours, base);
  if (!std::regex_match(name, match, derived)) return {};
  base = match[1] == "pool5" ? pooled_top(ours) : match[1].str();
  if (!ours.find(base)) return {};
  const Tensor whole = load(ours, base);
  if (match[2] == "sum") return row_sums(whole, want.shape.at(0));
  const std::int64_t number = std::stoll(match[3]);
  return match[2] == "stride" ? strided(whole, number) : first_rows(whole, number);
}

double tolerance_of(const std::string& base, const std::string& name, const Tensor& want) {
  if (name.ends_with("_sum")) return top_tolerance * largest(want.values);
  if (base == "data") return data_tolerance;
  if (base == "rois") return roi_tolerance;
  if (base == "cls_prob" || base == "rpn_cls_prob_reshape" || base == "roi_scores") return prob_tolerance;
  if (base == "pred_boxes") return box_tolerance;
  return top_tolerance * largest(want.values);
}

// ---- detections ----

struct Row {
  double class_id, score, box[4];
};

std::vector<Row> rows(const Tensor& tensor) {
  std::vector<Row> result(tensor.values.size() / 6);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const double* v = &tensor.values[i * 6];
    result[i] = {v[0], v[1], {v[2], v[3], v[4], v[5]}};
  }
  return result;
}

double box_distance(const double* a, const double* b) {
  double most = 0;
  for (int k = 0; k < 4; ++k) most = std::max(most, std::abs(a[k] - b[k]));
  return most;
}

// Two RoIs that pool the same cells have equal scores; suppression may then keep either. True when `got` is
// another RoI's box of the same class with the very score that the reference gives to `want`.
bool is_twin(const Row& want, const Row& got, const Tensor& reference_prob, const Tensor& our_boxes) {
  const auto classes = static_cast<std::size_t>(reference_prob.shape[1]);
  const auto c = static_cast<std::size_t>(want.class_id);
  const std::size_t box_columns = static_cast<std::size_t>(our_boxes.shape[1]);
  for (std::size_t r = 0; r < static_cast<std::size_t>(reference_prob.shape[0]); ++r) {
    if (static_cast<float>(reference_prob.values[r * classes + c]) != static_cast<float>(want.score))
      continue;
    const double* box = &our_boxes.values[r * box_columns + (box_columns == 4 ? 0 : 4 * c)];
    if (box_distance(box, got.box) <= box_tolerance) return true;
  }
  return false;
}

// One to one: same class, score and box within the tolerances, equal scores interchangeable.
void compare_detections(Tally& tally, const std::string& name, const Tensor& got_tensor,
                        const Tensor& want_tensor, const Tensor& reference_prob, const Tensor& our_boxes) {
  INFO(name);
  const std::vector<Row> got = rows(got_tensor), want = rows(want_tensor);
  CHECK(got.size() == want.size());
  std::vector<bool> used(got.size());
  std::vector<const Row*> unmatched;
  const auto take = [&](const Row& row, auto fits) {
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (used[i] || got[i].class_id != row.class_id || std::abs(got[i].score - row.score) > prob_tolerance ||
          !fits(got[i]))
        continue;
      used[i] = true;
      return true;
    }
    return false;
  };
  for (const Row& row : want) {
    if (!take(row, [&](const Row& g) { return box_distance(g.box, row.box) <= box_tolerance; }))
      unmatched.push_back(&row);
  }
  for (const Row* row : unmatched) {
    INFO("class " << row->class_id << " score " << row->score << " box " << row->box[0] << " " << row->box[1]
                  << " " << row->box[2] << " " << row->box[3]);
    CHECK(take(*row, [&](const Row& g) { return is_twin(*row, g, reference_prob, our_boxes); }));
  }
  for (std::size_t i = 1; i < got.size(); ++i) {
    const bool ordered = got[i - 1].class_id < got[i].class_id ||
                         (got[i - 1].class_id == got[i].class_id && got[i - 1].score >= got[i].score);
    CHECK(ordered);
  }
  tally.count(want.size() * 6);
}

// ---- a dump against a reference file ----

bool is_about_the_image(const std::string& name) { return name == "image_bgr" || name == "im_scale"; }

// Every tensor of the reference that a network computes; detections under other settings are compared by the
// caller.
void compare_stages(Tally& tally, const std::string& case_name, const SafetensorsFile& ours,
                    const SafetensorsFile& reference) {
  std::set<std::string> unknown;
  for (const StoredTensor& stored : reference.tensors()) {
    const std::string name = stored.name;
    if (is_about_the_image(name) || name.rfind("detections_", 0) == 0) continue;
    const Tensor want = load(reference, name);
    if (name == "detections") {
      compare_detections(tally, case_name + " detections", load(ours, name), want,
                         load(reference, "cls_prob"), load(ours, "pred_boxes"));
      continue;
    }
    std::string base;
    const Tensor got = counterpart(ours, name, want, base);
    if (got.shape.empty()) {
      unknown.insert(name);
      continue;
    }
    INFO(case_name << " " << name);
    CHECK(got.shape == want.shape);
    tally.compare(case_name + " " + name, got.values, want.values, tolerance_of(base, name, want));
  }
  INFO(case_name << ": the dump has no counterpart of these");
  CHECK(unknown == std::set<std::string>{});
}

std::vector<std::string> detect(const std::string& model, const fs::path& image,
                                const SafetensorsFile& reference, const std::string& dump) {
  const auto text = [&](const char* key) {
    return std::to_string(std::lround(golden::number(reference, key)));
  };
  return {"detect", model, image.string(), "--short-side", text("scale"), "--long-side", text("max_size"),
          "--dump", dump};
}

// The image itself, through decoding and resizing, with the cap on detections as each reference tensor wants
// it.
void compare_detect(Tally& tally, const std::string& case_name, const std::string& model,
                    const fs::path& image, const SafetensorsFile& reference, const TempDir& dir) {
  const std::string dump = dir / "detect.safetensors";
  run_ok(detect(model, image, reference, dump));
  compare_stages(tally, case_name, *SafetensorsFile::open(dump), reference);
  for (const auto& match : golden::matching(reference, R"(detections_(unlimited|max(\d+)))")) {
    auto arguments = detect(model, image, reference, dump);
    arguments.insert(arguments.end(), {"--max-detections", match[2].empty() ? "0" : match[2]});
    run_ok(arguments);
    const auto ours = SafetensorsFile::open(dump);
    compare_detections(tally, case_name + " " + match[0], load(*ours, "detections"),
                       load(reference, match[0]), load(reference, "cls_prob"), load(*ours, "pred_boxes"));
  }
}

// data and im_info as the file has them, and the original's size from the image that it carries.
void write_blob(const std::string& path, const SafetensorsFile& reference,
                const std::vector<float>& im_info) {
  const StoredTensor& image = golden::tensor(reference, "image_bgr");
  const std::vector<float> size{static_cast<float>(image.shape[0]), static_cast<float>(image.shape[1])};
  const StoredTensor list[] = {golden::tensor(reference, "data"),
                               {"im_info", DType::f32, {1, 3}, im_info.data(), 12},
                               {"image_size", DType::f32, {1, 2}, size.data(), 8}};
  write_safetensors(path, list, {});
}

void check_diff(const std::string& ours, const std::string& reference) {
  const auto result = tool::run({"diff", ours, reference, "--rtol", "1e-4", "--atol", "1e-5", "--json", "-"});
  INFO(result.out << result.err);
  const auto json = nlohmann::json::parse(result.out);
  CHECK(json["tensors"].size() > 10);
  // Equal scores may stand in either order in `detections`, which a row by row comparison cannot know.
  if (!json["same"].get<bool>()) CHECK(json["first_difference"] == "detections");
}

void check_tiny_net(const fs::path& folder) {
  const std::string name = folder.filename().string();
  const TempDir dir;
  const auto reference = golden::open(name + "/reference.safetensors");
  const std::string prototxt = golden::path(name + "/test.prototxt").string();
  const fs::path image = golden::path(name + "/image.png");
  Tally tally(name);

  CHECK(read_image(image.string()).bgr == golden::values<std::uint8_t>(*reference, "image_bgr"));
  write_blob(dir / "blob.safetensors", *reference, golden::values(*reference, "im_info"));
  const std::string sources[] = {"model.caffemodel", "model.safetensors"};
  std::vector<std::string> outputs;
  for (const std::string& source : sources) {
    const std::string model = dir / (source + ".frcnn"), out = dir / (source + ".out");
    run_ok({"convert", golden::path(name + "/" + source).string(), model, "--prototxt", prototxt});
    run_ok({"run", model, dir / "blob.safetensors", out});
    outputs.push_back(tool::read_file(out));
  }
  CHECK((outputs[0] == outputs[1]));  // of megabytes, hence not printed
  const std::string model = dir / (sources[0] + ".frcnn"), out = dir / (sources[0] + ".out");
  compare_stages(tally, name + " run", *SafetensorsFile::open(out), *reference);
  check_diff(out, reference->path());

  // The reference file itself is a blob; its image's size then follows from im_info.
  run_ok({"run", model, reference->path(), dir / "direct.out"});
  CHECK((tool::read_file(dir / "direct.out") == outputs[0]));

  const auto references = entries(folder, R"(reference(_\d+)?\.safetensors)");
  for (const fs::path& file : references) {
    compare_detect(tally, name + " detect " + file.stem().string(), model, image,
                   *SafetensorsFile::open(file.string()), dir);
  }
  // Detectors in PyTorch's files: bbox_pred is rounded once more, so not bit for bit.
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string checkpoint = entry.path().filename().string();
    if (!std::regex_match(checkpoint, std::regex(R"(.*checkpoint.*\.pth)"))) continue;
    const std::string torch = dir / (checkpoint + ".frcnn"), top = dir / (checkpoint + ".out");
    run_ok({"convert", entry.path().string(), torch, "--prototxt", prototxt});
    run_ok({"run", torch, dir / "blob.safetensors", top});
    compare_stages(tally, checkpoint + " run", *SafetensorsFile::open(top), *reference);
    for (const fs::path& file : references)
      compare_detect(tally, checkpoint + " detect " + file.stem().string(), torch, image,
                     *SafetensorsFile::open(file.string()), dir);
  }
  tally.finish();
}

}  // namespace

TEST_CASE("golden: tiny networks agree stage by stage, from either source format") {
  const fs::path shared = golden::shared_directory();
  if (shared.empty()) return;
  for (const fs::path& folder : entries(shared / "golden", "tiny_.+")) {
    INFO(folder.string());
    check_tiny_net(folder);
  }
}

TEST_CASE("golden: the blood-cell detector computes its stored blobs") {
  const fs::path shared = golden::shared_directory();
  if (shared.empty()) return;
  const TempDir dir;
  const fs::path folder = shared / "bccd";
  const std::string model = dir / "bccd.safetensors";
  run_ok({"convert", entries(folder, R"(.+\.caffemodel)")[0].string(), model, "--prototxt",
          entries(folder, R"(.+\.prototxt)")[0].string()});
  const ModelConfig config = load_model(model)->config;
  // The PyTorch file of the same weights makes the same model, so everything that is computed of it.
  run_ok({"convert", entries(folder, R"(.+\.pth)")[0].string(), dir / "torch.safetensors", "--prototxt",
          entries(folder, R"(.+\.prototxt)")[0].string()});
  CHECK((tool::read_file(dir / "torch.safetensors") == tool::read_file(model)));
  Tally tally("bccd blobs");
  for (const fs::path& file : entries(folder, R"(reference_blobs_.+\.safetensors)")) {
    const auto reference = SafetensorsFile::open(file.string());
    const auto& data = golden::tensor(*reference, "data").shape;
    const auto& image = golden::tensor(*reference, "image_bgr").shape;
    const double scale = image_scale(config, image[0], image[1]);
    write_blob(dir / "blob.safetensors", *reference,
               {static_cast<float>(data[2]), static_cast<float>(data[3]), static_cast<float>(scale)});
    run_ok({"run", model, dir / "blob.safetensors", dir / "out.safetensors"});
    compare_stages(tally, file.stem().string(), *SafetensorsFile::open(dir / "out.safetensors"), *reference);
  }
  tally.finish();
}
