#include "model_io/model_file.h"

#include "scratch.h"
#include "small_models.h"

namespace frcnn {
namespace {

using small_models::WeightSet;

void refused(const ModelConfig& config, const WeightSet& weights, std::initializer_list<std::string> parts) {
  scratch::check_error([&] { check_model(config, weights.tensors(), "m.safetensors"); }, ErrorCode::bad_model, parts);
}

}  // namespace

TEST_CASE("model file: what is saved is loaded, in every type a weight may have") {
  scratch::Folder folder;
  const ModelConfig config = small_models::config();
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const WeightSet weights = small_models::weights(dtype, dtype == DType::bf16);
    save_model(folder / "m", config, weights.tensors());
    const auto model = load_model(folder / "m");
    CHECK(config_to_json(model->config) == config_to_json(config));
    CHECK(model->weights.source() == folder / "m");
    REQUIRE(model->weights.all().size() == weights.tensors().size());
    for (const StoredTensor& want : weights.tensors()) {
      const Weight& got = model->weights.at(want.name);
      INFO(want.name);
      CHECK(got.view.dtype == dtype);
      CHECK(got.view.shape.rank == static_cast<int>(want.shape.size()));
      for (int i = 0; i < got.view.shape.rank; ++i) CHECK(got.view.shape[i] == want.shape[static_cast<std::size_t>(i)]);
      REQUIRE(got.view.bytes() == want.bytes);
      CHECK(std::memcmp(got.view.data, want.data, want.bytes) == 0);
      REQUIRE(got.release_pages);
      got.release_pages();
      CHECK(std::memcmp(got.view.data, want.data, want.bytes) == 0);
    }
  }
}

TEST_CASE("model file: a weight outlives the model, and lies aligned even where the file does not align it") {
  scratch::Folder folder;
  const ModelConfig config = small_models::config();
  const WeightSet weights = small_models::weights();
  save_model(folder / "m", config, weights.tensors());
  // The same file with a header that is one byte longer: legal, but every tensor is now at an odd address.
  std::string bytes = scratch::read(folder / "m");
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  bytes.insert(8 + static_cast<std::size_t>(header), " ");
  ++header;
  std::memcpy(bytes.data(), &header, 8);
  scratch::write(folder / "odd", bytes);
  for (const char* name : {"m", "odd"}) {
    std::map<std::string, Weight> kept = load_model(folder / name)->weights.all();
    for (const StoredTensor& want : weights.tensors()) {
      const Weight& got = kept.at(want.name);
      CHECK(reinterpret_cast<std::uintptr_t>(got.view.data) % alignof(float) == 0);
      CHECK(std::memcmp(got.view.data, want.data, want.bytes) == 0);
    }
  }
}

TEST_CASE("model file: tensors without a configuration say how to make a model of them") {
  scratch::Folder folder;
  write_safetensors(folder / "m", small_models::weights().tensors(), {{"note", "x"}});
  scratch::check_error([&] { load_model(folder / "m"); }, ErrorCode::bad_model, {folder / "m", "frcnn convert"});
  scratch::check_error([&] { load_model(folder / "none"); }, ErrorCode::io, {folder / "none"});
  write_safetensors(folder / "m", small_models::weights().tensors(), {{"frcnn", "{"}});
  scratch::check_error([&] { load_model(folder / "m"); }, ErrorCode::bad_file, {folder / "m", "not JSON"});
}

TEST_CASE("model file: a model whose parts do not fit is neither saved nor loaded") {
  scratch::Folder folder;
  const ModelConfig config = small_models::config();
  WeightSet weights = small_models::weights();
  weights.remove("fc7.bias");
  scratch::check_error([&] { save_model(folder / "m", config, weights.tensors()); }, ErrorCode::bad_model,
                       {folder / "m", "'fc7.bias' is missing"});
  CHECK(folder.files() == 0);
  write_safetensors(folder / "m", weights.tensors(), {{"frcnn", config_to_json(config)}});
  scratch::check_error([&] { load_model(folder / "m"); }, ErrorCode::bad_model, {folder / "m", "'fc7.bias' is missing"});
  ModelConfig broken = config;
  broken.pixel_mean[1] = std::nan("");
  scratch::check_error([&] { save_model(folder / "n", broken, small_models::weights().tensors()); }, ErrorCode::bad_model,
                       {folder / "n", "pixel_mean"});
  CHECK(folder.files() == 1);
}

TEST_CASE("check_model: every tensor must be there and fit its neighbours") {
  const ModelConfig config = small_models::config();
  const auto weights = [] { return small_models::weights(); };
  check_model(config, weights().tensors(), "m");
  check_model(config, small_models::weights(DType::f32, true).tensors(), "m");

  refused(config, weights().replace("conv1.weight", {4, 1, 7, 7}), {"m.safetensors", "'conv1.weight'", "?x3x?x?", "4x1x7x7"});
  refused(config, weights().replace("conv1.bias", {5}), {"'conv1.bias': expected 4, the file has 5"});
  refused(config, weights().replace("conv2.weight", {5, 3, 5, 3}), {"'conv2.weight': expected ?x4x?x?, the file has 5x3x5x3"});
  refused(config, weights().replace("conv2.weight", {5, 4, 15}), {"'conv2.weight'"});
  refused(config, weights().replace("conv2.weight", {0, 4, 5, 3}), {"'conv2.weight'"});
  refused(config, weights().replace("rpn_conv1.weight", {6, 5, 1, 1}), {"'rpn_conv1.weight': expected ?x5x3x3"});
  refused(config, weights().replace("rpn_cls_score.weight", {18, 6, 1, 1}), {"expected 8x6x1x1, the file has 18x6x1x1"});
  refused(config, weights().replace("rpn_bbox_pred.weight", {16, 5, 1, 1}), {"expected 16x6x1x1"});
  refused(config, weights().replace("fc6.weight", {7, 45}), {"'fc6.weight': expected ?x30, the file has 7x45"});
  refused(config, weights().replace("fc7.weight", {9, 8}), {"'fc7.weight': expected ?x7"});
  refused(config, weights().replace("cls_score.weight", {4, 9}), {"'cls_score.weight': expected 3x9, the file has 4x9"});
  refused(config, weights().replace("bbox_pred.weight", {8, 9}), {"'bbox_pred.weight': expected 12x9"});
  refused(config, weights().replace("bbox_pred.bias", {4}), {"'bbox_pred.bias': expected 12"});
  refused(config, weights().replace("fc6.bias", {7}, DType::f64), {"'fc6.bias'", "f64"});
  refused(config, weights().replace("conv2.weight", {5, 4, 5, 3}, DType::i32), {"'conv2.weight'", "i32"});
  refused(config, weights().add("fc8.bias", {10}), {"'fc8.bias' is unknown"});
  refused(config, weights().add("fc6.bias", {7}), {"'fc6.bias' is there twice"});
  refused(config, weights().remove("rpn_conv1.weight").remove("rpn_conv1.bias").layer("rpn_conv/3x3", {6, 5, 3, 3}),
          {"'rpn_conv1.weight' is missing", "'rpn_conv1.bias' is missing", "'rpn_conv/3x3.weight' is unknown"});

  ModelConfig fewer = config;
  fewer.classes.pop_back();
  refused(fewer, weights(), {"'cls_score.weight': expected 2x9, the file has 3x9", "'bbox_pred.weight': expected 8x9"});
}

TEST_CASE("check_model: one message lists everything, and one lost layer does not blame the next") {
  const Error error = scratch::error_of([] {
    check_model(small_models::config(),
                small_models::weights().remove("conv1.weight").replace("fc7.bias", {1}).add("extra", {1}).tensors(), "m");
  });
  const std::string message = error.what();
  CHECK(std::count(message.begin(), message.end(), '\n') == 3);
  for (const char* name : {"'conv1.weight'", "'fc7.bias'", "'extra'"}) CHECK(message.find(name) != std::string::npos);
  CHECK(message.find("conv2") == std::string::npos);

  WeightSet crowd = small_models::weights();
  for (int i = 0; i < 5000; ++i) crowd.add("extra" + std::to_string(i), {1});
  CHECK(std::string(scratch::error_of([&] { check_model(small_models::config(), crowd.tensors(), "m"); }).what()).size() < 20000);
}

TEST_CASE("check_model: a backbone is its convolutions, with or without the ImageNet layers") {
  ModelConfig config = small_models::config();
  config.kind = ModelKind::backbone;
  config.classes.clear();
  const auto convs = [] {
    WeightSet w;
    w.layer("conv1", {4, 3, 7, 7}).layer("conv2", {5, 4, 3, 3});
    return w;
  };
  check_model(config, convs().tensors(), "m");
  check_model(config, convs().layer("fc6", {8, 5 * 36}).layer("fc7", {9, 8}).tensors(), "m");
  refused(config, convs().layer("fc6", {8, 5 * 36}), {"'fc7.weight' is missing"});
  refused(config, convs().layer("fc6", {8, 5 * 36 + 1}).layer("fc7", {9, 8}), {"181 columns", "5 channels"});
  refused(config, convs().layer("fc6", {8, 5 * 36}).layer("fc7", {9, 7}), {"'fc7.weight': expected ?x8"});
  refused(config, convs().layer("cls_score", {3, 9}), {"'cls_score.weight' is unknown"});
  scratch::Folder folder;
  save_model(folder / "b", config, convs().tensors());
  CHECK(load_model(folder / "b")->config.kind == ModelKind::backbone);
}

}  // namespace frcnn
