// Every defect that a data set can have is found where it is, and mended without touching anything else.
#include <algorithm>
#include <filesystem>
#include <map>
#include <stdexcept>

#include "catch.h"
#include "io/scratch.h"
#include "training/architecture.h"
#include "training/data_check.h"
#include "training/presets.h"
#include "training/train_dataset.h"
#include "voc_folder.h"

using namespace frcnn;
using voc_folder::VocFolder;

namespace {

DataCheckOptions options() {
  DataCheckOptions o;
  o.model = new_detector(preset("bccd").model, {"b", "x"}, nullptr).config;
  return o;
}

std::vector<std::string> found(const DataReport& report, Defect defect) {
  std::vector<std::string> messages;
  for (const DataFinding& one : report.findings)
    if (one.defect == defect) messages.push_back(one.message());
  return messages;
}

bool has(const std::vector<std::string>& lines, const std::string& part) {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const std::string& line) { return line.find(part) != std::string::npos; });
}

}  // namespace

TEST_CASE("data check: a clean set has no findings, and its boxes are measured") {
  VocFolder folder;
  voc_folder::fill(folder, 6);
  const DataReport report = check_data(folder.path(), options());
  for (const DataFinding& one : report.findings) INFO(one.message());
  CHECK(report.findings.empty());
  CHECK(report.images == 6);
  CHECK(report.objects == 12);
  CHECK(report.classes.at("cat") == 6);
  CHECK(report.sets.at("train") == 6);
  CHECK(report.touching_size == 6);
  CHECK(report.touching_zero == 0);
  // 20x20 boxes in images whose shorter side of 60 becomes 600: the other kind is 20x16.
  CHECK(report.width.value.front() == Approx(200));
  CHECK(report.height.value.front() == Approx(160));
  CHECK(report.root_area.value.back() == Approx(200));
  CHECK(report.anchor_iou.value.front() > 0.5);
  CHECK(report.reaches_positive > 0.9);
}

TEST_CASE("data check: wrong boxes are named with file and line and repaired when asked") {
  VocFolder folder;
  folder.add("good", 40, 30, {{"cat", {1, 1, 40, 30}}});
  folder.add("bad", 40, 30,
             {{"cat", {20, 10, 5, 15}},
              {"dog", {7, 7, 7, 7}},
              {"dog", {30, 20, 45, 31}},
              {"cat", {2, 2, 9, 9}},
              {"cat", {2, 2, 9, 9}},
              {"dog", {2, 2, 9, 9}},
              {"dog", {50, 50, 60, 60}},
              {"cat", {0, 3, 8, 9}}});
  folder.set("train");
  const DataReport report = check_data(folder.path(), options());
  const std::string file = folder.annotation("bad");
  CHECK(found(report, Defect::inverted) ==
        std::vector<std::string>{file + ":7: box 20,10,5,15 of cat is inverted"});
  CHECK(found(report, Defect::zero_size) ==
        std::vector<std::string>{file + ":17: box 7,7,7,7 of dog has no extent"});
  CHECK(found(report, Defect::out_of_frame).size() == 3);
  CHECK(has(found(report, Defect::out_of_frame), ":27: box 30,20,45,31 of dog leaves its image of 40x30"));
  CHECK(has(found(report, Defect::duplicate), ":47: box 2,2,9,9 of cat is there twice"));
  CHECK(has(found(report, Defect::contradiction), "box 2,2,9,9 of dog is a cat as well"));
  CHECK(found(report, Defect::counts_from_zero).empty());

  const std::string before = scratch::read(file), good = scratch::read(folder.annotation("good"));
  const auto repairs = repair_data(report);
  REQUIRE(repairs.size() == 1);
  CHECK(repairs[0].changes.size() == 6);
  CHECK(scratch::read(file + ".orig") == before);
  CHECK(scratch::read(folder.annotation("good")) == good);
  const VocAnnotation mended = parse_voc_annotation(scratch::read(file), file);
  std::vector<std::array<double, 4>> boxes;
  for (const VocObject& object : mended.objects) boxes.push_back(object.box);
  CHECK(boxes == std::vector<std::array<double, 4>>{
                     {5, 10, 20, 15}, {30, 20, 40, 30}, {2, 2, 9, 9}, {2, 2, 9, 9}, {1, 3, 8, 9}});
  const DataReport after = check_data(folder.path(), options());
  CHECK(after.findings.size() == 1);
  CHECK(after.findings[0].defect == Defect::contradiction);  // nobody can know which it is
  CHECK(repair_data(after).empty());
  // A second repair keeps the first state.
  folder.write("Annotations/bad.xml", VocFolder::xml(40, 30, {{"cat", {9, 9, 3, 3}}}));
  CHECK(repair_data(check_data(folder.path(), options())).size() == 1);
  CHECK(scratch::read(file + ".orig") == before);
}

TEST_CASE("data repair: everything else in the file stays, byte for byte") {
  const std::string xml =
      "<?xml version=\"1.0\"?>\r\n<!-- by hand -->\n<annotation verified='yes'>\n\t<folder>a &amp; "
      "b</folder><source/>\n"
      "\t<object><name> "
      "d\xc3\xa9</name><bndbox><xmin>9</xmin><ymin>2</ymin><xmax>3</xmax><ymax>8</ymax></bndbox></object>\n</"
      "annotation>\n\n";
  std::string wanted = xml;
  wanted.replace(wanted.find("<xmin>9"), 7, "<xmin>3");
  wanted.replace(wanted.find("<xmax>3"), 7, "<xmax>9");
  std::vector<std::string> changes;
  CHECK(repaired_annotation(xml, 20, 20, BoxOrigin::one, changes) == wanted);
  CHECK(changes == std::vector<std::string>{"5: box 9,2,3,8 of  d\xc3\xa9 becomes 3,2,9,8"});
  changes.clear();
  CHECK(repaired_annotation(wanted, 20, 20, BoxOrigin::one, changes) == wanted);
  // An object goes with all that is in it, wherever its end seems to be before.
  const std::string object =
      "\n <object><!-- </object> --><name>x</name><a><![CDATA[</object>]]></a>"
      "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object >";
  CHECK(repaired_annotation("<annotation>" + object + "\n</annotation>", 20, 20, BoxOrigin::one, changes) ==
        "<annotation>\n</annotation>");
  REQUIRE(changes.size() == 1);
  CHECK(changes[0] == "2: box 5,5,5,5 of x is removed: it has no extent");
  changes.clear();
  CHECK(repaired_annotation("no xml", 20, 20, BoxOrigin::one, changes) == "no xml");
  CHECK(changes.empty());
}

namespace {

// Five pictures whose boxes count from 0 and reach all borders.
void count_from_zero(VocFolder& folder) {
  for (const char* id : {"a", "b", "c", "d", "e"})
    folder.add(id, 40, 30, {{"cat", {0, 0, 39, 29}}, {"dog", {5, 6, 9, 9}}});
  folder.set("train");
}

std::map<std::string, std::string> annotations(const VocFolder& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "Annotations"))
    files[entry.path().filename().string()] = scratch::read(entry.path().string());
  return files;
}

std::array<double, 4> box_of(const VocFolder& folder, const std::string& id, std::size_t object) {
  return parse_voc_annotation(scratch::read(folder.annotation(id)), id).objects.at(object).box;
}

}  // namespace

TEST_CASE("data check: a set that counts from 0 is recognised, and moved only when that is asked for") {
  VocFolder folder;
  count_from_zero(folder);
  folder.write("Annotations/b.xml", VocFolder::xml(40, 30, {{"cat", {0, 0, 39, 29}}, {"dog", {9, 9, 5, 6}}}));
  folder.set("some", {"a", "b", "c", "d", "e"});
  folder.add("apart", 40, 30, {{"cat", {3, 3, 7, 9}}});
  DataCheckOptions wanted = options();
  wanted.set = "some";
  const DataReport report = check_data(folder.path(), wanted);
  REQUIRE(found(report, Defect::counts_from_zero).size() == 1);
  CHECK(found(report, Defect::out_of_frame).empty());
  REQUIRE(repair_data(report).size() == 1);  // the inverted box
  CHECK(box_of(folder, "b", 0) == std::array<double, 4>{0, 0, 39, 29});
  CHECK(box_of(folder, "b", 1) == std::array<double, 4>{5, 6, 9, 9});

  DataFix fix;
  fix.move_origin = true;
  CHECK(repair_data(check_data(folder.path(), wanted), fix).size() == 5);
  for (const char* id : {"a", "b", "e"}) {
    CHECK(box_of(folder, id, 0) == std::array<double, 4>{1, 1, 40, 30});
    CHECK(box_of(folder, id, 1) == std::array<double, 4>{6, 7, 10, 10});
  }
  CHECK(box_of(folder, "apart", 0) == std::array<double, 4>{3, 3, 7, 9});  // was not checked
  const DataReport after = check_data(folder.path(), wanted);
  CHECK(found(after, Defect::counts_from_zero).empty());
  CHECK(repair_data(after, fix).empty());
}

TEST_CASE("data check: little evidence moves nothing, nor a set of which a part cannot be moved") {
  VocFolder folder;
  folder.add("a", 40, 30, {{"cat", {0, 5, 20, 20}}, {"cat", {3, 3, 39, 9}}});
  folder.set("train");
  const DataReport report = check_data(folder.path(), options());
  CHECK(found(report, Defect::counts_from_zero).empty());
  CHECK(found(report, Defect::out_of_frame).size() == 1);
  DataFix fix;
  fix.move_origin = true;
  CHECK(repair_data(report, fix).size() == 1);
  CHECK(box_of(folder, "a", 0) == std::array<double, 4>{1, 5, 20, 20});  // cut off as if from 1
  CHECK(box_of(folder, "a", 1) == std::array<double, 4>{3, 3, 39, 9});

  VocFolder mixed;
  count_from_zero(mixed);
  mixed.write("Annotations/c.xml", "<annotation>\n<object>");
  mixed.add("f", 40, 30, {{"cat", {0, 0, 39, 29}}});
  const auto before = annotations(mixed);
  const DataReport unsound = check_data(mixed.path(), options());
  CHECK(has(found(unsound, Defect::counts_from_zero), "can be moved when no annotation is malformed"));
  CHECK(repair_data(unsound, fix).empty());
  CHECK(annotations(mixed) == before);
}

TEST_CASE("data repair: stopped anywhere and run again, it ends as if it had not been stopped") {
  VocFolder whole;
  count_from_zero(whole);
  DataFix fix;
  fix.move_origin = true;
  repair_data(check_data(whole.path(), options()), fix);
  const auto wanted = annotations(whole);
  CHECK(wanted.size() == 10);  // with the originals
  for (int stop = 0; stop < 5; ++stop) {
    VocFolder folder;
    count_from_zero(folder);
    const DataReport report = check_data(folder.path(), options());
    int replaced = 0;
    DataFix stopped = fix;
    stopped.replacing = [&](const std::string&) {
      if (replaced++ == stop) throw std::runtime_error("as if killed");
    };
    CHECK_THROWS_AS(repair_data(report, stopped), std::runtime_error);
    // What a new check sees of the mixture draws no conclusion: the repair is finished first.
    const DataReport mixture = check_data(folder.path(), options());
    CHECK(found(mixture, Defect::unfinished_repair).size() == 1);
    CHECK_THROWS_AS(repair_data(mixture, fix), Error);
    CHECK(finish_repair(folder.path()).size() == static_cast<std::size_t>(5 - stop));
    CHECK(annotations(folder) == wanted);
    CHECK(repair_data(check_data(folder.path(), options()), fix).empty());
    CHECK(annotations(folder) == wanted);
  }
  // Stopped before all files were written: nothing was replaced, and nothing of it is used.
  VocFolder early;
  count_from_zero(early);
  const auto before = annotations(early);
  early.write("Annotations/a.xml.repaired", "cut sho");
  CHECK(finish_repair(early.path()).empty());
  CHECK(annotations(early) == before);
}

TEST_CASE("data repair: boxes that were drawn in an image of another size are left alone") {
  VocFolder folder;
  folder.add("small", 400, 300, {{"cat", {1, 1, 40, 30}}});
  folder.write("Annotations/small.xml",
               VocFolder::xml(800, 600, {{"cat", {100, 100, 700, 500}}, {"dog", {50, 40, 9, 9}}}));
  folder.add("fits", 40, 30, {{"cat", {1, 1, 40, 30}}});
  folder.write("Annotations/fits.xml", VocFolder::xml(30, 40, {{"cat", {1, 1, 40, 30}}}));
  folder.set("train");
  const auto before = annotations(folder);
  const DataReport report = check_data(folder.path(), options());
  CHECK(has(found(report, Defect::wrong_size),
            "small.xml:3: states 800x600, the image has 400x300 pixels, and "
            "boxes leave it"));
  CHECK(has(found(report, Defect::inverted), "small.xml:"));
  const auto repairs = repair_data(report);
  REQUIRE(repairs.size() == 1);
  CHECK(repairs[0].file == folder.annotation("fits"));
  CHECK(scratch::read(folder.annotation("small")) == before.at("small.xml"));
  CHECK_FALSE(std::filesystem::exists(folder.annotation("small") + ".orig"));
  const DataReport after = check_data(folder.path(), options());
  for (const DataFinding& one : after.findings) CHECK(one.remedy == Remedy::none);
}

TEST_CASE(
    "data check: image sets that are empty, unreadable or list an image twice; names in other letters") {
  VocFolder folder;
  voc_folder::fill(folder, 3);
  folder.add("loud", 40, 30, {{"CAT", {1, 1, 9, 9}}});
  folder.set("train", {"p0", "p1", "p0", "", "gone"});
  folder.write("ImageSets/Main/blank.txt", "\n \n");
  folder.write("ImageSets/Main/empty.txt", "");
  DataCheckOptions wanted = options();
  wanted.classes = {"b", "cat", "dog"};
  const DataReport report = check_data(folder.path(), wanted);
  CHECK(report.images == 4);
  CHECK(report.sets.at("train") == 3);
  CHECK(has(found(report, Defect::listed_twice), "train.txt:3: image p0 is listed twice"));
  CHECK(has(found(report, Defect::no_annotation), "train.txt:5: image gone has no annotation"));
  CHECK(has(found(report, Defect::bad_set), "blank.txt: the image set is empty"));
  CHECK(has(found(report, Defect::bad_set), "empty.txt: "));
  CHECK(found(report, Defect::unknown_class).empty());
  // A number in a message is no line.
  std::filesystem::remove(folder.annotation("p2"));
  std::filesystem::create_directory(folder.annotation("p2"));
  folder.write("Annotations/40.xml", "");
  for (const std::string& message : found(check_data(folder.path(), wanted), Defect::malformed))
    CHECK(message.find("40.xml: ") != std::string::npos);
}

TEST_CASE("data check: files that are missing, broken, equal or shared; sizes; classes") {
  VocFolder folder;
  voc_folder::fill(folder, 5);
  folder.add("same", 90, 60, {{"cow", {1, 1, 20, 20}}});
  std::filesystem::copy_file(folder.picture("p0"), folder.picture("same"),
                             std::filesystem::copy_options::overwrite_existing);
  folder.add("turned", 20, 50, {{"cat", {1, 1, 20, 50}}});
  folder.write("Annotations/turned.xml", VocFolder::xml(50, 20, {{"cat", {1, 1, 20, 50}}}));
  folder.write("JPEGImages/p1.png", "broken");
  std::filesystem::remove(folder.picture("p2"));
  folder.write("Annotations/p3.xml", "<annotation>\n<object>\n<name>cat</name></object></annotation>");
  folder.write("Annotations/p4.xml", "<annotation>\n<object>");
  folder.set("test", {"p0", "turned"});
  folder.set("train", {"p0", "p1", "p2", "p3", "missing"});
  DataCheckOptions wanted = options();
  wanted.classes = {"b", "cat", "dog"};
  std::size_t calls = 0;
  wanted.progress = [&](std::size_t, std::size_t) { ++calls; };
  const DataReport report = check_data(folder.path(), wanted);
  CHECK(calls > 0);
  CHECK(has(found(report, Defect::broken_image), "p1.png: not a JPEG"));
  CHECK(has(found(report, Defect::broken_image), "train.txt:2)"));
  CHECK(has(found(report, Defect::no_image), "train.txt:3: "));
  CHECK(has(found(report, Defect::malformed), "p3.xml:2: <object> has no <bndbox>"));
  CHECK(has(found(report, Defect::malformed), "p4.xml:"));
  CHECK(has(found(report, Defect::same_pixels), "same.png: has the same pixels as "));
  CHECK(has(found(report, Defect::wrong_size), "turned.xml:3: states 50x20, the image has 20x50 pixels"));
  CHECK(has(found(report, Defect::no_annotation), "train.txt:5: image missing has no annotation"));
  CHECK(
      has(found(report, Defect::shared_image), "test.txt:1: shares 1 image with train.txt, the first is p0"));
  CHECK(has(found(report, Defect::unknown_class), "same.xml:7: the class cow is not in the list"));
  CHECK(repair_data(report).size() == 1);
  CHECK(parse_voc_annotation(scratch::read(folder.annotation("turned")), "t").height == 50);

  wanted.set = "test";
  CHECK(check_data(folder.path(), wanted).images == 2);
  wanted.set = "train+test";
  CHECK(has(found(check_data(folder.path(), wanted), Defect::no_annotation),
            "train.txt:5: image missing has no annotation"));
  wanted.set = "nothing";
  scratch::check_error([&] { check_data(folder.path(), wanted); }, ErrorCode::io,
                       {folder / "ImageSets/Main/nothing.txt", "there is no image set nothing"});
  scratch::check_error([&] { check_data(folder / "Annotations", options()); }, ErrorCode::io,
                       {"not a VOC dataset"});
}

TEST_CASE("data check: a set of nothing is not clean") {
  VocFolder empty;
  const DataReport nothing = check_data(empty.path(), options());
  CHECK(has(found(nothing, Defect::no_data), "Annotations: there is no annotation"));
  CHECK(has(found(nothing, Defect::bad_set), "ImageSets/Main: there is no image set"));
  VocFolder unlisted;
  unlisted.add("a", 40, 30, {{"cat", {1, 1, 9, 9}}});
  const DataReport lists = check_data(unlisted.path(), options());
  REQUIRE(lists.findings.size() == 1);
  CHECK(lists.findings[0].defect == Defect::bad_set);
  VocFolder plain;
  plain.add("a", 40, 30, {});
  plain.set("train");
  CHECK(has(found(check_data(plain.path(), options()), Defect::no_data), "there is nothing to learn"));
}

TEST_CASE("data check: of a set only its own images and list are looked at") {
  VocFolder folder;
  voc_folder::fill(folder, 4);
  folder.add("bad", 40, 30, {{"cat", {9, 9, 3, 3}}});
  folder.set("one", {"p0", "p1"});
  folder.set("two", {"p2", "bad", "p2", "gone"});
  folder.set("half", {"p2", "p3"});
  folder.write("ImageSets/Main/empty.txt", "\n");
  DataCheckOptions wanted = options();
  wanted.set = "one";
  const DataReport one = check_data(folder.path(), wanted);
  std::string messages;
  for (const DataFinding& finding : one.findings) messages += finding.message() + "\n";
  CHECK(messages == "");
  CHECK(one.sets.size() == 5);
  wanted.set = "two";
  const DataReport two = check_data(folder.path(), wanted);
  CHECK(found(two, Defect::listed_twice).size() == 1);
  CHECK(found(two, Defect::no_annotation).size() == 1);
  CHECK(found(two, Defect::inverted).size() == 1);
  CHECK(has(found(two, Defect::shared_image), "two.txt:1: shares 1 image with half.txt, the first is p2"));
  CHECK(found(two, Defect::bad_set).empty());
}

TEST_CASE("data check: sets inside others are noted, as are spellings and lonely classes") {
  VocFolder folder;
  voc_folder::fill(folder, 4);
  folder.add("x", 90, 60, {{"CAT", {1, 1, 20, 20}}, {"cow", {5, 5, 30, 30}}, {"Cat", {1, 1, 20, 20}}});
  folder.set("train", {"p0", "p1", "p2", "x"});
  folder.set("test", {"p1", "p2"});
  folder.set("trainval", {"p0", "p1", "p2", "p3", "x"});
  folder.set("cat_train", {"p0", "p1", "p2", "x"});
  const DataReport report = check_data(folder.path(), options());
  CHECK(report.classes == std::map<std::string, std::int64_t>{{"CAT", 6}, {"cow", 1}, {"dog", 4}});
  REQUIRE(report.findings.size() == 1);  // none of the notes
  CHECK(report.findings[0].defect == Defect::duplicate);
  CHECK(report.findings[0].remedy == Remedy::none);
  CHECK(has(report.notes, "the class CAT is written Cat (1), cat (4) as well"));
  CHECK(has(report.notes, "the class cow has a single object"));
  CHECK(has(report.notes, "test.txt lies in train.txt as a whole (2 images)"));
  CHECK(has(report.notes, "test.txt lies in cat_train.txt as a whole"));
  CHECK(report.notes.size() == 4);  // neither trainval nor a class's own list
  // Training counts alike.
  const TrainDataset data = make_train_dataset(read_voc_sets(folder.path(), "trainval"), {}, {});
  CHECK(std::vector<std::string>{"__background__", "CAT", "cow", "dog"} == data.classes);
  DataCheckOptions wanted = options();
  wanted.classes = {"b", "cat", "dog", "cow"};
  CHECK(check_data(folder.path(), wanted).classes.at("cat") == 6);
}
