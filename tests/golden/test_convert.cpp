// Caffe's files of the tiny networks, and of the blood-cell detector, through the converter.
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <regex>
#include <string>

#include "frcnn/error.h"
#include "golden.h"
#include "graph/dtype.h"
#include "model_io/convert/convert.h"
#include "model_io/model_file.h"

namespace {

namespace fs = std::filesystem;
using namespace frcnn;

struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "frcnn-golden-XXXXXX").string();
    if (!mkdtemp(name.data())) FAIL("no temporary folder");
    path = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

std::vector<fs::path> tiny_networks() {
  const fs::path shared = golden::shared_directory();
  std::vector<fs::path> found;
  if (shared.empty()) return found;
  for (const auto& entry : fs::directory_iterator(shared / "golden"))
    if (entry.is_directory() && entry.path().filename().string().rfind("tiny_", 0) == 0)
      found.push_back(entry.path());
  if (found.empty()) FAIL("no folder tiny_* in " << (shared / "golden").string());
  std::sort(found.begin(), found.end());
  return found;
}

fs::path existing(const fs::path& file) {
  if (!fs::exists(file)) FAIL("missing golden file " << file.string());
  return file;
}

ConversionResult convert_to(const fs::path& destination, const fs::path& source,
                            const fs::path& prototxt = {},
                            std::vector<std::pair<std::string, std::string>> sets = {}) {
  ConvertOptions options;
  options.sources = {source.string()};
  options.destination = destination.string();
  options.prototxt = prototxt.string();
  options.sets = std::move(sets);
  return convert(options);
}

// Every tensor of the model bit for bit as in the reference, where types agree. Returns the elements
// compared.
std::size_t compare_bits(const std::string& model, const SafetensorsFile& reference, bool all) {
  const auto loaded = load_model(model);
  std::size_t compared = 0;
  for (const auto& [name, weight] : loaded->weights.all()) {
    INFO(model << ": " << name);
    const StoredTensor& wanted = golden::tensor(reference, name);
    REQUIRE(weight.view.dtype == wanted.dtype);
    const Shape& shape = weight.view.shape;
    REQUIRE(std::vector<std::int64_t>(shape.dim.begin(), shape.dim.begin() + shape.rank) == wanted.shape);
    CHECK(std::memcmp(weight.view.data, wanted.data, wanted.bytes) == 0);
    compared += static_cast<std::size_t>(shape.elements());
  }
  if (all) CHECK(loaded->weights.all().size() == reference.tensors().size());
  return compared;
}

// The same, but for bbox_pred, which the checkpoint holds divided: within 1e-6 of each number.
std::size_t compare_jwyang(const std::string& model, const SafetensorsFile& reference) {
  const auto loaded = load_model(model);
  std::size_t compared = 0;
  CHECK(loaded->weights.all().size() == reference.tensors().size());
  for (const auto& [name, weight] : loaded->weights.all()) {
    INFO(model << ": " << name);
    const StoredTensor& wanted = golden::tensor(reference, name);
    const auto count = static_cast<std::size_t>(weight.view.shape.elements());
    REQUIRE(wanted.bytes == count * sizeof(float));
    REQUIRE(weight.view.dtype == DType::f32);
    if (name.rfind("bbox_pred.", 0) != 0) {
      CHECK(std::memcmp(weight.view.data, wanted.data, wanted.bytes) == 0);
    } else {
      std::vector<float> a(count), b(count);
      std::memcpy(a.data(), weight.view.data, wanted.bytes);
      std::memcpy(b.data(), wanted.data, wanted.bytes);
      double worst = 0;
      for (std::size_t i = 0; i < count; ++i)
        worst = std::max(worst, std::abs(double{a[i]} - b[i]) - 1e-6 * std::abs(double{b[i]}));
      CHECK(worst <= 0);
    }
    compared += count;
  }
  return compared;
}

std::string bytes_of(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::string list(const std::vector<double>& values) {
  std::string text;
  for (const double v : values) text += (text.empty() ? "" : ",") + nlohmann::json(v).dump();
  return text;
}

}  // namespace

TEST_CASE("golden: tiny networks convert alike from every source") {
  golden::Tally tally("convert tiny_*");
  const auto networks = tiny_networks();
  if (networks.empty()) return;
  for (const fs::path& network : networks) {
    INFO(network.string());
    const Folder folder;
    const auto reference = SafetensorsFile::open(existing(network / "model.safetensors").string());
    const fs::path prototxt = existing(network / "test.prototxt"),
                   caffemodel = existing(network / "model.caffemodel");
    const std::string a = folder.path / "a", b = folder.path / "b", c = folder.path / "c";
    const ModelConfig config = convert_to(a, caffemodel, prototxt).config;
    convert_to(b, network / "model.safetensors", prototxt);
    CHECK(config_to_json(load_model(a)->config) == config_to_json(load_model(b)->config));
    tally.count(compare_bits(a, *reference, true) + compare_bits(b, *reference, true));
    CHECK(config.classes.size() ==
          static_cast<std::size_t>(golden::tensor(*reference, "cls_score.weight").shape[0]));

    // Without the prototxt the anchors are all that a net of no published shapes must be told.
    const std::vector<std::pair<std::string, std::string>> anchors{
        {"anchor_scales", list(config.anchor_scales)}, {"anchor_ratios", list(config.anchor_ratios)}};
    convert_to(c, caffemodel, {}, anchors);
    CHECK(config_to_json(load_model(c)->config) == config_to_json(config));
    tally.count(compare_bits(c, *reference, true));
  }
  tally.finish();
}

TEST_CASE("golden: V1 files of tiny networks are backbones") {
  golden::Tally tally("convert pretrained_v1");
  const auto networks = tiny_networks();
  if (networks.empty()) return;
  for (const fs::path& network : networks) {
    INFO(network.string());
    const Folder folder;
    const auto reference = SafetensorsFile::open(existing(network / "model.safetensors").string());
    const std::string model = folder.path / "m";
    const ConversionResult result = convert_to(model, existing(network / "pretrained_v1.caffemodel"));
    CHECK(result.config.kind == ModelKind::backbone);
    CHECK(result.sources.at(0).format == "caffemodel (V1 layers)");
    tally.count(compare_bits(model, *reference, false));
  }
  tally.finish();
}

TEST_CASE("golden: PyTorch files hold the same tensors") {
  golden::Tally tally("convert *.pth");
  const auto networks = tiny_networks();
  if (networks.empty()) return;
  for (const fs::path& network : networks) {
    const auto reference = SafetensorsFile::open(existing(network / "model.safetensors").string());
    const Folder folder;
    const std::string model = folder.path / "m";
    for (const auto& entry : fs::directory_iterator(network)) {
      const std::string name = entry.path().filename().string();
      const bool jwyang = name.rfind("jwyang", 0) == 0;
      if (entry.path().extension() != ".pth" && name != "jwyang.safetensors") continue;
      INFO(entry.path().string());
      // With the prototxt, and as the names alone say.
      for (const bool prototxt : {true, false}) {
        if (!jwyang && prototxt) continue;  // convolutions alone
        std::vector<std::pair<std::string, std::string>> sets;
        if (!prototxt && name == "jwyang.safetensors") sets = {{"roi_op", "pool"}};
        const ConversionResult result =
            convert_to(model, entry.path(), prototxt ? network / "test.prototxt" : fs::path(), sets);
        CHECK((result.config.kind == ModelKind::detector) == jwyang);
        tally.count(jwyang ? compare_jwyang(model, *reference) : compare_bits(model, *reference, false));
      }
    }
  }
  tally.finish();
}

TEST_CASE("golden: the blood-cell detector, from Caffe's and from PyTorch's file") {
  const fs::path shared = golden::shared_directory();
  if (shared.empty()) return;
  const fs::path bccd = shared / "bccd";
  if (!fs::exists(bccd)) {
    WARN("SKIPPED: " << bccd.string() << " is not there");
    return;
  }
  golden::Tally tally("convert bccd");
  const Folder folder;
  const std::string with = folder.path / "with", without = folder.path / "without",
                    names = folder.path / "names";
  const ConversionResult result =
      convert_to(with, existing(bccd / "bccd_zf.caffemodel"), existing(bccd / "bccd_zf.prototxt"));
  CHECK(convert_to(without, bccd / "bccd_zf.caffemodel").assumed.empty());
  CHECK(config_to_json(load_model(with)->config) == config_to_json(load_model(without)->config));
  std::ifstream json_file(existing(bccd / "bccd_zf.json"));
  const auto json = nlohmann::json::parse(json_file);
  CHECK(result.config.anchor_scales == json["anchors"]["scales"].get<std::vector<double>>());
  CHECK(result.config.anchor_ratios == json["anchors"]["ratios"].get<std::vector<double>>());
  CHECK(result.config.feat_stride == json["anchors"]["feat_stride"].get<double>());
  CHECK(result.config.dropout_test_scale == 0.5);
  CHECK(result.config.classes.size() == json["classes"].size());
  CHECK(result.parameters == json["parameters"].get<std::int64_t>());

  const auto classes = json["classes"].get<std::vector<std::string>>();
  std::ofstream class_file(names);
  for (const std::string& name : classes) class_file << name << '\n';
  class_file.close();
  ConvertOptions options;
  options.prototxt = (bccd / "bccd_zf.prototxt").string();
  options.classes = names;
  options.sets = {{"max_detections", "100"}, {"score_threshold", "0.05"}};
  const auto converted = [&](const char* source) {
    options.sources = {existing(bccd / source).string()};
    options.destination = folder.path / (std::string(source) + ".model");
    convert(options);
    return options.destination;
  };
  const std::string caffe = converted("bccd_zf.caffemodel"), torch = converted("bccd_zf.pth");
  tally.count(compare_bits(torch, *SafetensorsFile::open(caffe), true));
  CHECK((bytes_of(torch) == bytes_of(caffe)));
  CHECK(load_model(caffe)->config.classes == classes);
  tally.finish();
}
