// VOC directories and annotations: what is read, and what each kind of damage is called.
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <unistd.h>

#include "catch.h"
#include "frcnn/error.h"
#include "training/voc_dataset.h"

namespace {

namespace fs = std::filesystem;

std::string object(const std::string& name, const std::string& box, const std::string& more = "") {
  return "<object>\n<name>" + name + "</name>" + more + "\n<bndbox>" + box + "</bndbox></object>\n";
}
std::string sides(const std::string& a, const std::string& b, const std::string& c, const std::string& d) {
  return "<xmin>" + a + "</xmin><ymin>" + b + "</ymin><xmax>" + c + "</xmax><ymax>" + d + "</ymax>";
}
std::string annotation(const std::string& objects) {
  return "<annotation>\n<size><width>100</width><height>50</height></size>\n" + objects + "</annotation>\n";
}

std::string message_of(const std::string& xml) {
  try {
    frcnn::parse_voc_annotation(xml, "d/a.xml");
  } catch (const frcnn::Error& error) {
    return error.what();
  }
  return "no error";
}

struct Dataset {
  fs::path root = fs::temp_directory_path() / ("frcnn_voc_" + std::to_string(::getpid()));
  Dataset() {
    for (const char* folder : {"Annotations", "ImageSets/Main", "JPEGImages"})
      fs::create_directories(root / folder);
  }
  ~Dataset() { fs::remove_all(root); }
  void put(const std::string& name, const std::string& text) const { std::ofstream(root / name) << text; }
  std::string error_of(const std::string& set) const {
    try {
      frcnn::read_voc_dataset(root.string(), set);
    } catch (const frcnn::Error& error) {
      return error.what();
    }
    return "no error";
  }
};

}  // namespace

TEST_CASE("voc annotation: names, flags, fractional boxes, parts passed over") {
  const std::string part = "<part><name>head</name><bndbox>" + sides("1", "1", "2", "2") + "</bndbox></part>";
  std::vector<std::string> remarks;
  const auto image = frcnn::parse_voc_annotation(
      annotation(object(" dog\n", sides("1", " 2.5 ", "100", "50"), "<difficult>1</difficult>" + part) +
                 object("cat", sides("40", "10", "30", "20"), "<difficult> </difficult>") +
                 object("cat", sides("0", "10", "30", "20"), "<difficult>0</difficult>") +
                 object("cow", sides("9", "9", "9", "9"))),
      "d/a.xml", &remarks);
  CHECK(image.id == "a");
  CHECK(image.width == 100);
  CHECK(image.height == 50);
  REQUIRE(image.objects.size() == 4);
  CHECK(image.objects[0].name == "dog");
  CHECK(image.objects[0].difficult);
  CHECK(image.objects[0].box == std::array<double, 4>{1, 2.5, 100, 50});
  CHECK(image.objects[0].line == 3);
  CHECK_FALSE(image.objects[1].difficult);
  REQUIRE(remarks.size() == 2);
  CHECK(remarks[0].find("d/a.xml:") == 0);
  CHECK(remarks[0].find("box 40,10,30,20 of cat is inverted") != std::string::npos);
  CHECK(remarks[1].find("box 0,10,30,20 of cat leaves its image") != std::string::npos);
}

TEST_CASE("voc annotation: damage is named with file and line") {
  CHECK(message_of("").find("d/a.xml:1: ") == 0);
  CHECK(message_of("no xml").find("d/a.xml:1: ") == 0);
  CHECK(message_of("<other/>") == "d/a.xml:1: no <annotation> in this file");
  CHECK(message_of("<annotation>\n<object>\n</annotation>").find("d/a.xml:3: not well-formed XML") == 0);
  CHECK(message_of(annotation(object("", sides("1", "1", "2", "2")))) ==
        "d/a.xml:3: an <object> with an empty <name>");
  CHECK(message_of(annotation("<object><name>x</name></object>")) == "d/a.xml:3: <object> has no <bndbox>");
  CHECK(message_of(annotation(object("x", "<xmin>1</xmin>"))) == "d/a.xml:5: <bndbox> has no <ymin>");
  CHECK(message_of(annotation(object("x", sides("1", "2x", "3", "4")))) ==
        "d/a.xml:5: <ymin> is \"2x\", expected a number");
  CHECK(message_of(annotation(object("x", sides("1", "", "3", "4")))).find("<ymin> is \"\"") !=
        std::string::npos);
  CHECK(message_of(annotation(object("x", sides("1", "nan", "3", "4")))).find("<ymin> is \"nan\"") !=
        std::string::npos);
  CHECK(message_of(annotation(object("x", sides("1", "1e300", "3", "4")))).find("expected a number") !=
        std::string::npos);
  CHECK(message_of("<annotation><size><width>-3</width></size></annotation>").find("<width> is -3") !=
        std::string::npos);
  // Depth and entities: neither the stack nor the memory suffers.
  std::string deep = "<annotation>";
  for (int i = 0; i < 200000; ++i) deep += "<a>";
  CHECK(message_of(deep).find("not well-formed XML") != std::string::npos);
  CHECK(message_of("<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]><annotation>" +
                   object("&c;", sides("1", "1", "2", "2")) + "</annotation>") == "no error");
}

TEST_CASE("voc dataset: image sets, order, missing parts") {
  const Dataset data;
  data.put("Annotations/b.xml", annotation(object("x", sides("1", "1", "2", "2"))));
  data.put("Annotations/a.xml", annotation(""));
  data.put("ImageSets/Main/test.txt", "b  -1\r\n\na\n");
  data.put("ImageSets/Main/twice.txt", "a\nb\na\n");
  data.put("ImageSets/Main/blank.txt", "\n \n");
  data.put("ImageSets/Main/more.txt", "a\nc\n");
  const auto read = frcnn::read_voc_dataset(data.root.string(), "test");
  REQUIRE(read.images.size() == 2);
  CHECK(read.images[0].id == "b");
  CHECK(read.images[1].objects.empty());
  CHECK(frcnn::object_names(read) == std::vector<std::string>{"x"});
  CHECK(data.error_of("twice").find("twice.txt:3: image a is listed twice") != std::string::npos);
  CHECK(data.error_of("blank").find("the image set is empty") != std::string::npos);
  CHECK(data.error_of("more").find("c.xml is not there; `frcnn data check") != std::string::npos);
  CHECK(data.error_of("none").find("none.txt: cannot open") != std::string::npos);
  CHECK_THROWS_WITH(frcnn::read_voc_dataset("/nowhere", "test"),
                    Catch::Matchers::Contains("/nowhere: not a VOC dataset"));
  CHECK_THROWS_WITH(frcnn::voc_image_path(data.root.string(), "b"),
                    Catch::Matchers::Contains("b: no image of this name"));
  data.put("JPEGImages/b.PNG", "");
  CHECK(fs::path(frcnn::voc_image_path(data.root.string(), "b")).filename() == "b.PNG");
  data.put("JPEGImages/b.jpg", "");
  CHECK(fs::path(frcnn::voc_image_path(data.root.string(), "b")).filename() == "b.jpg");
}

TEST_CASE("class names: exactly, else in other letters; sets are split at +") {
  const std::vector<std::string> names{"Dog", "dog", "cat"};
  const frcnn::ClassNames classes(names);
  CHECK(classes.find("dog") == 1);
  CHECK(classes.find("Dog") == 0);
  CHECK(classes.find("DOG") == 0);
  CHECK(classes.find("CAT") == 2);
  CHECK_FALSE(classes.find("do"));
  CHECK_FALSE(frcnn::ClassNames().find("cat"));
  frcnn::VocDataset data;
  data.images.resize(1);
  for (const char* name : {"dog", "cat", "Dog", "dog"})
    data.images[0].objects.push_back({name, false, {}, 0});
  CHECK(frcnn::object_names(data) == std::vector<std::string>{"Dog", "cat"});
  CHECK(frcnn::split_sets("train+val") == std::vector<std::string>{"train", "val"});
  CHECK(frcnn::split_sets("train") == std::vector<std::string>{"train"});
}
