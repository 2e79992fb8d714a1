// From annotations to what is learned, and every way in which they can be wrong.
#include <string>

#include "catch.h"
#include "io/scratch.h"
#include "training/train_dataset.h"
#include "voc_folder.h"

using namespace frcnn;
using voc_folder::VocFolder;

namespace {

bool any(const std::vector<std::string>& lines, const std::string& part) {
  for (const std::string& line : lines)
    if (line.find(part) != std::string::npos) return true;
  return false;
}

TrainDataset make(const VocFolder& folder, const DataConfig& config = {},
                  std::vector<std::string> classes = {}) {
  return make_train_dataset(read_voc_sets(folder.path(), "train"), std::move(classes), config);
}

}  // namespace

TEST_CASE("train dataset: boxes count from 0, classes are the annotations', difficult objects are left out") {
  VocFolder folder;
  folder.add("a", 40, 30, {{"dog", {1, 1, 40, 30}}, {"cat", {5, 6, 7, 8}}, {"dog", {2, 2, 9, 9}, true}});
  folder.add("b", 20, 50, {});
  folder.set("train");
  TrainDataset data = make(folder);
  CHECK(data.classes == std::vector<std::string>{"__background__", "cat", "dog"});
  REQUIRE(data.entries.size() == 2);
  REQUIRE(data.entries[0].objects.size() == 2);
  CHECK(data.entries[0].objects[0].box == std::array<float, 4>{0, 0, 39, 29});
  CHECK(data.entries[0].objects[0].class_id == 2);
  CHECK(data.entries[0].objects[1].class_id == 1);
  CHECK(data.entries[1].objects.empty());
  CHECK(data.entries[1].height == 50);
  CHECK(data.warnings.empty());
  CHECK(data.objects == 2);

  DataConfig config;
  config.use_difficult = true;
  config.use_images_without_objects = false;
  const TrainDataset other = make(folder, config);
  CHECK(other.entries.size() == 1);
  CHECK(other.entries[0].objects.size() == 3);
  CHECK(other.fingerprint != data.fingerprint);
  CHECK(make(folder).fingerprint == data.fingerprint);
}

TEST_CASE("train dataset: classes given, other letters, unknown ones, one that never occurs") {
  VocFolder folder;
  folder.add("a", 40, 30, {{"Dog", {1, 1, 20, 20}}, {"cat", {5, 6, 17, 18}}});
  folder.set("train");
  const TrainDataset data = make(folder, {}, {"b", "cow", "dog", "cat"});
  CHECK(data.entries[0].objects[0].class_id == 2);
  CHECK(any(data.warnings, "the class cow does not occur"));
  scratch::check_error(
      [&] {
        make(folder, {}, {"b", "cat"});
      },
      ErrorCode::bad_file, {"a.xml:7", "Dog", "data.unknown_classes=ignore"});
  DataConfig config;
  config.unknown_classes = UnknownClasses::ignore;
  const TrainDataset ignoring = make(folder, config, {"b", "cat"});
  CHECK(ignoring.entries[0].objects.size() == 1);
  CHECK(any(ignoring.warnings, "1 object of classes that are not learned: Dog"));
  scratch::check_error(
      [&] {
        make(folder, config, {"b", "cow"});
      },
      ErrorCode::bad_file, {"has no object to learn"});
}

TEST_CASE("train dataset: without a list, names in other letters are one class") {
  VocFolder folder;
  folder.add("a", 40, 30, {{"Dog", {1, 1, 20, 20}}, {"dog", {5, 6, 17, 18}}, {"cat", {2, 2, 9, 9}}});
  folder.set("train");
  const TrainDataset data = make(folder);
  CHECK(data.classes == std::vector<std::string>{"__background__", "Dog", "cat"});
  CHECK(data.entries[0].objects[0].class_id == 1);
  CHECK(data.entries[0].objects[1].class_id == 1);
}

TEST_CASE("train dataset: inverted, outlying and tiny boxes by policy") {
  VocFolder folder;
  folder.add("a", 40, 30,
             {{"cat", {20, 10, 5, 15}},
              {"cat", {30, 20, 45, 31}},
              {"cat", {0, 0, 9, 9}},
              {"cat", {7, 7, 7, 7}},
              {"cat", {1, 1, 9, 9}}});
  folder.set("train");
  DataConfig config;
  TrainDataset data = make(folder, config);
  REQUIRE(data.entries[0].objects.size() == 1);
  CHECK(any(data.warnings, "a.xml:37: box 7,7,7,7 of cat has no extent and is left out"));
  CHECK(any(data.warnings, "a.xml:7: box 20,10,5,15 of cat is inverted and is left out"));
  CHECK(any(data.warnings, "box 30,20,45,31 of cat leaves its image of 40x30 and is left out"));
  CHECK(data.warnings.size() == 4);
  config.min_box_side = 1;  // where a pixel is an object
  data = make(folder, config);
  REQUIRE(data.entries[0].objects.size() == 2);
  CHECK(data.entries[0].objects[0].box == std::array<float, 4>{6, 6, 6, 6});
  CHECK(data.warnings.size() == 3);

  config.bad_boxes = BadBoxes::repair;
  config.min_box_side = 2;
  data = make(folder, config);
  REQUIRE(data.entries[0].objects.size() == 4);
  CHECK(data.entries[0].objects[0].box == std::array<float, 4>{4, 9, 19, 14});
  CHECK(data.entries[0].objects[1].box == std::array<float, 4>{29, 19, 39, 29});
  CHECK(data.entries[0].objects[2].box == std::array<float, 4>{0, 0, 8, 8});
  CHECK(any(data.warnings, "box 7,7,7,7 of cat has no extent and is left out (data.min_box_side=1 would"));
  config.min_box_side = 10;
  CHECK(any(make(folder, config).warnings,
            "box 20,10,5,15 of cat is narrower than 10 pixels (data.min_box_side) and is left out"));

  config.bad_boxes = BadBoxes::error;
  scratch::check_error([&] { make(folder, config); }, ErrorCode::bad_file, {"a.xml:7", "is inverted"});
  VocFolder line;
  line.add("a", 40, 30, {{"cat", {1, 1, 9, 9}}, {"cat", {5, 7, 20, 7}}});
  line.set("train");
  scratch::check_error([&] { make(line, config); }, ErrorCode::bad_file,
                       {"a.xml:17: box 5,7,20,7 of cat has no extent"});
  config.min_box_side = 1;
  CHECK(make(line, config).objects == 2);
}

TEST_CASE("train dataset: what the check calls without extent is what is not learned") {
  VocFolder folder;
  std::vector<voc_folder::Object> objects;
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 4; ++k) objects.push_back({"cat", {3 + i, 3 + k, 5, 5}});
  folder.add("a", 40, 30, objects);
  folder.set("train");
  const auto sets = read_voc_sets(folder.path(), "train");
  for (const VocObject& object : sets.images[0].objects) {
    const auto& b = object.box;
    CHECK(without_extent(b, 1) == (b[0] == b[2] || b[1] == b[3]));
  }
  CHECK(without_extent({7.2, 3, 7.9, 9}, 1));  // training truncates
  CHECK_FALSE(without_extent({7.9, 3, 8.1, 9}, 1));
  // Counted from 0, 0.4 to 1.6 are two pixels.
  CHECK_FALSE(without_extent({0.4, 3, 1.6, 9}, 0));
  CHECK(without_extent({0.4, 3, 0.6, 9}, 0));
}

TEST_CASE("train dataset: an image without an annotation is named where it is listed") {
  VocFolder folder;
  folder.add("a", 40, 30, {{"cat", {1, 1, 9, 9}}});
  folder.set("train", {"a", "", "gone"});
  scratch::check_error([&] { make(folder); }, ErrorCode::io,
                       {"ImageSets/Main/train.txt:3: image gone has no annotation", "gone.xml is not there",
                        "`frcnn data check " + folder.path() + "`"});
  const std::string long_name(300, 'x');  // longer than any file may be called
  folder.set("train", {"a", long_name});
  scratch::check_error([&] { make(folder); }, ErrorCode::io, {"train.txt:2: image xxx", "is not there"});
  scratch::check_error([&] { voc_image_path(folder.path(), long_name); }, ErrorCode::io, {"no image of this name"});
}

TEST_CASE("train dataset: sets are joined; missing and unstated things are told") {
  VocFolder folder;
  folder.add("a", 40, 30, {{"cat", {1, 1, 9, 9}}});
  folder.add("b", 40, 30, {{"cat", {1, 1, 9, 9}}});
  folder.set("train", {"a"});
  folder.set("val", {"b"});
  folder.set("both", {"b", "a"});
  CHECK(read_voc_sets(folder.path(), "train+val").images.size() == 2);
  scratch::check_error([&] { read_voc_sets(folder.path(), "train+both"); }, ErrorCode::bad_file,
                       {"image a is in more than one"});
  scratch::check_error([&] { read_voc_sets(folder.path(), "train+none"); }, ErrorCode::io, {"none.txt"});

  folder.write("Annotations/a.xml", VocFolder::xml(0, 0, {{"cat", {1, 1, 41, 9}}}));
  const TrainDataset sized = make_train_dataset(read_voc_sets(folder.path(), "both"), {}, {});
  CHECK(sized.entries[1].width == 40);  // taken from the picture
  CHECK(any(sized.warnings, "leaves its image of 40x30"));

  std::filesystem::remove(folder.picture("b"));
  scratch::check_error([&] { make_train_dataset(read_voc_sets(folder.path(), "both"), {}, {}); },
                       ErrorCode::io, {"b", "no image of this name"});
  folder.write("Annotations/a.xml", VocFolder::xml(0, 0, {{"cat", {1, 1, 11, 9}}}));
  DataConfig config;
  config.broken_images = BrokenImages::skip;
  const TrainDataset rest = make_train_dataset(read_voc_sets(folder.path(), "both"), {}, config);
  CHECK(rest.entries.size() == 1);
  CHECK(any(rest.warnings, "left out: "));
}
