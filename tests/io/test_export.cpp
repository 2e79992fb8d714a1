#include <cstring>
#include <filesystem>
#include <string>

#include "catch.h"
#include "model_io/convert/convert.h"
#include "model_io/convert/export.h"
#include "scratch.h"
#include "small_models.h"

using namespace frcnn;
using scratch::check_error;
using scratch::Folder;
using small_models::WeightSet;

namespace {

constexpr CaffeForm forms[]{CaffeForm::py_faster_rcnn, CaffeForm::opencv};

// A model, its Caffe files, and the model made of them again.
struct RoundTrip {
  Folder folder;
  std::string model = folder / "model.safetensors", caffemodel = folder / "out.caffemodel",
              prototxt = folder / "out.prototxt", again = folder / "again.safetensors";

  ExportResult exported(const ModelConfig& config, const WeightSet& weights, CaffeForm form) {
    save_model(model, config, weights.tensors());
    return export_caffe({model, caffemodel, form});
  }
  void convert(const ExportResult& result, bool with_prototxt, std::optional<DType> dtype = {}) {
    ConvertOptions options;
    options.sources = {caffemodel};
    options.destination = again;
    if (with_prototxt) options.prototxt = prototxt;
    options.dtype = dtype;
    for (const std::string& line : result.left_out) {
      const std::size_t equals = line.find('=');
      options.sets.emplace_back(line.substr(0, equals), line.substr(equals + 1));
    }
    frcnn::convert(options);
  }
  // Every bit of the file: configuration, order, shapes, numbers.
  void check_same(const ExportResult& result, std::optional<DType> dtype = {}) {
    for (const bool with_prototxt : {false, true}) {
      INFO("with the prototxt: " << with_prototxt);
      convert(result, with_prototxt, dtype);
      CHECK(config_to_json(load_model(again)->config) == config_to_json(load_model(model)->config));
      CHECK((scratch::read(again) == scratch::read(model)));
    }
  }
};

bool any_holds(const std::vector<std::string>& list, const std::string& part) {
  for (const std::string& line : list)
    if (line.find(part) != std::string::npos) return true;
  return false;
}

}  // namespace

TEST_CASE("export and convert do not replace what they read") {
  RoundTrip trip;
  const ExportResult result = trip.exported(small_models::config(), small_models::weights(), forms[0]);
  const std::string model = scratch::read(trip.model), caffemodel = scratch::read(trip.caffemodel);
  const std::string link = trip.folder / "link.caffemodel";
  std::filesystem::create_symlink(trip.model, link);
  for (const std::string& destination : {trip.model, link})
    check_error(
        [&] {
          export_caffe({trip.model, destination, forms[0]});
        },
        ErrorCode::invalid_argument, {destination, "is read here"});
  CHECK((scratch::read(trip.model) == model));
  ConvertOptions options;
  options.sources = {trip.caffemodel};
  options.prototxt = trip.prototxt;
  for (const std::string& destination : {trip.caffemodel, trip.prototxt}) {
    options.destination = destination;
    check_error([&] { convert(options); }, ErrorCode::invalid_argument, {destination, "is read here"});
  }
  CHECK((scratch::read(trip.caffemodel) == caffemodel));
  CHECK(result.layers > 0);
}

TEST_CASE("export: files convert back to the same model, bit for bit") {
  for (const CaffeForm form : forms) {
    INFO("form " << static_cast<int>(form));
    RoundTrip trip;
    const ExportResult result = trip.exported(small_models::config(), small_models::weights(), form);
    CHECK(result.prototxt == trip.prototxt);
    CHECK(result.bytes == std::filesystem::file_size(trip.caffemodel));
    CHECK(result.parameters > 0);
    CHECK(trip.folder.files() == 3);
    trip.check_same(result);
  }
}

TEST_CASE("export: conventions that a network cannot hold are listed as --set takes them") {
  ModelConfig config = small_models::config();
  config.pixel_mean = {1.5, 2, 3};
  config.short_side = 300;
  config.anchor_rule = AnchorRule::paper;
  config.rpn_min_size = 8;
  config.suppress = Suppress::at_or_above;
  config.max_detections = -1;
  config.keep_ties = false;
  for (const CaffeForm form : forms) {
    RoundTrip trip;
    const ExportResult result = trip.exported(config, small_models::weights(), form);
    for (const char* line : {"pixel_mean=1.5,2.0,3.0", "short_side=300", "anchor_rule=paper",
                             "suppress=at_or_above", "keep_ties=false"})
      CHECK(any_holds(result.left_out, line));
    CHECK_FALSE(any_holds(result.left_out, "long_side"));
    CHECK((scratch::read(trip.prototxt).find("short_side=300") != std::string::npos));
    trip.check_same(result);
  }
}

TEST_CASE("export: test-time factors of fc6 and fc7") {
  for (const double scale : {1.0, 0.5, 0.3, 0.7, 2.0})
    for (const CaffeForm form : forms) {
      INFO("scale " << scale << ", form " << static_cast<int>(form));
      ModelConfig config = small_models::config();
      config.dropout_test_scale = scale;
      RoundTrip trip;
      trip.check_same(trip.exported(config, small_models::weights(), form));
    }
  RoundTrip trip;
  trip.exported(small_models::config(), small_models::weights(), CaffeForm::py_faster_rcnn);
  CHECK(scratch::read(trip.prototxt).find("scale_train: false") != std::string::npos);
}

TEST_CASE("export: numbers that are no float come back as they were written") {
  ModelConfig config = small_models::config();
  config.spatial_scale = 0.1;
  config.anchor_scales = {3.3, 8.25};
  config.anchor_ratios = {0.4, 2.1};
  for (const CaffeForm form : forms) {
    RoundTrip trip;
    trip.check_same(trip.exported(config, small_models::weights(), form));
  }
}

TEST_CASE("export: half precision is widened exactly") {
  for (const DType dtype : {DType::f16, DType::bf16}) {
    WeightSet weights;  // biases are f32, as convert writes them
    const WeightSet shapes = small_models::weights();
    for (const StoredTensor& t : shapes.tensors())
      weights.add(t.name, t.shape, t.shape.size() == 1 ? DType::f32 : dtype);
    RoundTrip trip;
    trip.check_same(trip.exported(small_models::config(), weights, CaffeForm::opencv), dtype);
  }
}

TEST_CASE("export: boxes shared by all classes, rounding up and down") {
  for (const Rounding rounding : {Rounding::ceil, Rounding::floor})
    for (const CaffeForm form : forms) {
      ModelConfig config = small_models::config();
      config.backbone[2].pool.rounding = rounding;
      RoundTrip trip;
      const ExportResult result = trip.exported(config, small_models::weights(DType::f32, true), form);
      trip.check_same(result);
      const std::string text = scratch::read(trip.prototxt);
      CHECK((text.find("share_location: true") != std::string::npos) == (form == CaffeForm::opencv));
      const char* word = form == CaffeForm::opencv ? "ceil_mode: false" : "round_mode: FLOOR";
      CHECK((text.find(word) != std::string::npos) == (rounding == Rounding::floor));
      CHECK(any_holds(result.remarks, "rounds down") ==
            (rounding == Rounding::floor && form == CaffeForm::py_faster_rcnn));
    }
}

TEST_CASE("export: backbones keep fc6 and fc7 in the binary file") {
  ModelConfig config = small_models::config();
  config.kind = ModelKind::backbone;
  config.classes.clear();
  for (const bool classifier : {false, true}) {
    WeightSet weights;
    weights.layer("conv1", {4, 3, 7, 7}).layer("conv2", {5, 4, 5, 3});
    if (classifier) weights.layer("fc6", {7, 45}).layer("fc7", {9, 7});
    RoundTrip trip;
    const ExportResult result = trip.exported(config, weights, CaffeForm::py_faster_rcnn);
    CHECK(scratch::read(trip.prototxt).find("InnerProduct") == std::string::npos);
    trip.convert(result, true);
    const auto again = SafetensorsFile::open(trip.again);
    REQUIRE(again->tensors().size() == weights.tensors().size());
    for (const StoredTensor& t : weights.tensors())
      CHECK(std::memcmp(again->find(t.name)->data, t.data, t.bytes) == 0);
  }
}

TEST_CASE("export: what Caffe has no layer for is refused, and nothing is written") {
  RoundTrip trip;
  ModelConfig config = small_models::config();
  config.roi_op = RoiOp::align;
  check_error([&] { trip.exported(config, small_models::weights(), CaffeForm::py_faster_rcnn); },
              ErrorCode::unsupported, {"model.safetensors", "roi_op=align"});
  config = small_models::config();
  config.feat_stride = 12.5;
  check_error([&] { trip.exported(config, small_models::weights(), CaffeForm::opencv); },
              ErrorCode::unsupported, {"feat_stride=12.5"});
  CHECK(trip.folder.files() == 1);
  check_error(
      [&] {
        export_caffe({trip.folder / "none", trip.caffemodel, CaffeForm::opencv});
      },
      ErrorCode::io, {"none"});
  check_error(
      [&] {
        export_caffe({trip.model, trip.folder / "no/such/out", CaffeForm::py_faster_rcnn});
      },
      ErrorCode::io, {"no/such/out"});
}

TEST_CASE("export: where the prototxt goes") {
  CHECK(prototxt_beside("a/zf.caffemodel") == "a/zf.prototxt");
  CHECK(prototxt_beside("a/zf.bin") == "a/zf.bin.prototxt");
  CHECK(prototxt_beside(".caffemodel") == ".caffemodel.prototxt");
}
