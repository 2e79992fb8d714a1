// Background decoding: order, sameness, broken images, bounded memory.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <string>
#include <thread>

#include "catch.h"
#include "io/scratch.h"
#include "training/loader.h"
#include "voc_folder.h"

using namespace frcnn;
using voc_folder::VocFolder;

namespace {

struct Data {
  VocFolder folder;
  RunConfig config;
  TrainDataset dataset;
  explicit Data(int images = 7, std::int64_t batch = 2) {
    voc_folder::fill(folder, images);
    config.train.solver.iter_size = batch;
    config.train.augment = {true, true, true, 0.1, 8, true};
    dataset = make_train_dataset(read_voc_sets(folder.path(), "train"), {}, config.data);
  }
  Sampler sampler() const {
    std::vector<bool> wide;
    for (const TrainEntry& entry : dataset.entries) wide.push_back(entry.width >= entry.height);
    return {wide, config.train.solver.iter_size, true, config.train.seed};
  }
};

void check_same(const LoadedBatch& a, const LoadedBatch& b) {
  CHECK(a.number == b.number);
  REQUIRE(a.images.size() == b.images.size());
  for (std::size_t i = 0; i < a.images.size(); ++i) {
    CHECK(a.images[i].image.name == b.images[i].image.name);
    CHECK(a.images[i].pixels.bgr == b.images[i].pixels.bgr);
    CHECK(a.images[i].image.bgr.data() == a.images[i].pixels.bgr.data());
    REQUIRE(a.images[i].image.objects.size() == b.images[i].image.objects.size());
    for (std::size_t k = 0; k < a.images[i].image.objects.size(); ++k)
      CHECK(a.images[i].image.objects[k].box == b.images[i].image.objects[k].box);
  }
}

}  // namespace

TEST_CASE("loader: batches come in order and are the same for any number of threads and any start") {
  const Data data;
  const Sampler sampler = data.sampler();
  for (const int threads : {1, 3}) {
    Loader loader(data.dataset, sampler, data.config, 4, {threads, 1 << 20});
    for (std::int64_t i = 4; i < 24; ++i)
      check_same(loader.next(), Loader::load(data.dataset, sampler, data.config, i));
  }
}

TEST_CASE("loader: objects lie where the picture shows them") {
  const Data data(3, 1);
  const Sampler sampler = data.sampler();
  Loader loader(data.dataset, sampler, data.config, 0, {});
  int objects = 0;
  for (int i = 0; i < 20; ++i) {
    const LoadedBatch batch = loader.next();
    for (const LoadedImage& one : batch.images)
      for (const auto& object : one.image.objects) {
        const auto& [x1, y1, x2, y2] = object.box;
        const bool cat = data.dataset.classes[static_cast<std::size_t>(object.class_id)] == "cat";
        for (const auto& [x, y] : {std::pair{x1, y1}, {x2, y2}}) {
          const int level = one.image.bgr[static_cast<std::size_t>(
              (static_cast<int>(y) * one.image.width + static_cast<int>(x)) * 3)];
          CHECK((cat ? level > 180 : level < 60));
          ++objects;
        }
      }
  }
  CHECK(objects > 40);
}

TEST_CASE("loader: it does not run away from its consumer, and may be dropped at any time") {
  const Data data(5, 1);
  const Sampler sampler = data.sampler();
  { Loader unused(data.dataset, sampler, data.config, 0, {4, 1 << 20}); }
  // Room for one byte still lets through the batch that is waited for.
  Loader narrow(data.dataset, sampler, data.config, 0, {2, 1});
  for (std::int64_t i = 0; i < 10; ++i) CHECK(narrow.next().number == i);
}

TEST_CASE("loader: what is decoded ahead is bounded in bytes and in batches") {
  // What was not decoded in time is broken now.
  const auto decoded = [](const LoaderOptions& options) {
    const Data data(40, 1);
    const Sampler sampler = data.sampler();
    Loader loader(data.dataset, sampler, data.config, 0, options);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    for (int i = 0; i < 40; ++i) data.folder.write("JPEGImages/p" + std::to_string(i) + ".png", "broken");
    int count = 0;
    try {
      for (; count < 40; ++count) loader.next();
    } catch (const Error&) {
    }
    return count;
  };
  const int by_bytes = decoded({2, 1}), by_batches = decoded({2, 1 << 30});
  CHECK(by_bytes >= 1);
  CHECK(by_bytes <= 2);  // one for each thread
  CHECK(by_batches >= 1);
  CHECK(by_batches <= 6);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("loader: a thread that cannot be started is an error, not the end of the program") {
  const Data data(3, 1);
  const Sampler sampler = data.sampler();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {  // with room for the stacks of a few threads
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t bytes = pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + (rlim_t{64} << 20);
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_AS, &limit);
    try {
      Loader loader(data.dataset, sampler, data.config, 0, {64, 1 << 20});
    } catch (const Error& error) {
      const std::string what = error.what();
      ::_exit(what.find(" of 64 ") != std::string::npos && what.find("thread 1 ") == std::string::npos ? 7
                                                                                                       : 8);
    }
    ::_exit(9);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 7);
}
#endif

TEST_CASE("loader: a broken image is an error in its turn, or skipped and named") {
  Data data(6, 2);
  data.config.train.augment.aspect_grouping = false;
  const Sampler sampler(std::vector<bool>(6, true), 2, false, 3);
  data.folder.write("JPEGImages/p3.png", "not a picture");
  const auto holds = [&](std::int64_t number) {
    for (const std::size_t i : sampler.batch(number))
      if (data.dataset.entries[i].name == "p3") return true;
    return false;
  };
  {
    Loader loader(data.dataset, sampler, data.config, 0, {3, 1 << 20});
    for (std::int64_t i = 0;; ++i) {
      if (!holds(i)) {
        CHECK(loader.next().images.size() == 2);
        continue;
      }
      scratch::check_error([&] { loader.next(); }, ErrorCode::bad_file,
                           {"p3.png", "not a JPEG, PNG or BMP image", "--set data.broken_images=skip"});
      break;
    }
  }
  data.config.data.broken_images = BrokenImages::skip;
  Loader loader(data.dataset, sampler, data.config, 0, {3, 1 << 20});
  for (std::int64_t i = 0; i < 6; ++i) {
    const LoadedBatch batch = loader.next();
    CHECK(batch.images.size() == (holds(i) ? 1 : 2));
    REQUIRE(batch.skipped.size() == (holds(i) ? 1 : 0));
    if (holds(i)) CHECK(batch.skipped[0].find("p3.png") != std::string::npos);
  }
  // A picture that is not what its annotation says would put the boxes in the wrong place.
  data.folder.add("p9", 33, 22, {{"cat", {1, 1, 9, 9}}});
  data.folder.write("Annotations/p9.xml", VocFolder::xml(40, 22, {{"cat", {1, 1, 9, 9}}}));
  data.folder.set("one", {"p9"});
  data.config.data.broken_images = BrokenImages::fatal;
  const TrainDataset lying = make_train_dataset(read_voc_sets(data.folder.path(), "one"), {}, {});
  const Sampler only({true}, 1, false, 3);
  scratch::check_error([&] { Loader::load(lying, only, data.config, 0); }, ErrorCode::bad_file,
                       {"p9.png: 33x22", "p9.xml", "40x22"});
}

TEST_CASE("measure_input_offset: the mean of the images' means, whole levels") {
  VocFolder folder;
  for (const auto& [id, w, level] : {std::tuple{"a", 10, 100}, {"b", 30, 131}}) {
    folder.add(id, w, 10, {{"cat", {1, 1, 5, 5}}});
    Image flat;
    flat.width = w;
    flat.height = 10;
    for (int i = 0; i < w * 10; ++i)
      for (int c = 0; c < 3; ++c) flat.bgr.push_back(static_cast<std::uint8_t>(level + c));
    write_png(folder.picture(id), flat);
  }
  folder.set("train");
  const TrainDataset data = make_train_dataset(read_voc_sets(folder.path(), "train"), {}, {});
  CHECK(measure_input_offset(data, {110, 116, 130}, BrokenImages::fatal) == std::array<double, 3>{6, 0, -12});
}
