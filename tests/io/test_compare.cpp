#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "model_io/compare.h"
#include "scratch.h"

namespace frcnn {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double infinite = std::numeric_limits<double>::infinity();

// A file of tensors, each [n] (or the given shape) of one type.
class Tensors {
 public:
  template <typename T>
  Tensors& add(const std::string& name, DType dtype, std::vector<T> values,
               std::vector<std::int64_t> shape = {}) {
    if (shape.empty()) shape = {static_cast<std::int64_t>(values.size())};
    std::string bytes(values.size() * sizeof(T), '\0');
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    bytes_.push_back(std::make_shared<std::string>(std::move(bytes)));
    tensors_.push_back({name, dtype, std::move(shape), bytes_.back()->data(), bytes_.back()->size()});
    return *this;
  }
  Tensors& f32(const std::string& name, std::vector<float> values, std::vector<std::int64_t> shape = {}) {
    return add(name, DType::f32, std::move(values), std::move(shape));
  }
  std::shared_ptr<const SafetensorsFile> file(const std::map<std::string, std::string>& metadata = {}) const {
    scratch::Folder folder;
    write_safetensors(folder / "t", tensors_, metadata);
    return SafetensorsFile::open(folder / "t");  // the mapping outlives the name
  }

 private:
  std::vector<std::shared_ptr<std::string>> bytes_;
  std::vector<StoredTensor> tensors_;
};

Comparison compare(const Tensors& a, const Tensors& b, Tolerance tolerance = {}) {
  return compare_tensors(*a.file(), *b.file(), tolerance);
}

TensorDifference compare_floats(std::vector<float> a, std::vector<float> b, Tolerance tolerance = {}) {
  return compare(Tensors().f32("x", std::move(a)), Tensors().f32("x", std::move(b)), tolerance).tensors.at(0);
}

}  // namespace

TEST_CASE("compare: the tolerance is measured against the largest element of b") {
  const Tolerance tolerance{0.01, 0};
  CHECK(compare_floats({100, 0.9f}, {100, 0}, tolerance).verdict == Verdict::same);
  CHECK(compare_floats({100, 1.1f}, {100, 0}, tolerance).verdict == Verdict::differs);
  CHECK(compare_floats({100, 1.1f}, {100, 0}, {0.01, 0.2}).verdict == Verdict::same);
  CHECK(compare_floats({1}, {100}, {1, 0}).verdict == Verdict::same);  // b rules, not a
  CHECK(compare_floats({100}, {1}, {1, 0}).verdict == Verdict::differs);
  CHECK(compare_floats({1, 2}, {1, 2}, {0, 0}).verdict == Verdict::same);
  CHECK(compare_floats({1, std::nextafter(2.0f, 3.0f)}, {1, 2}, {0, 0}).verdict == Verdict::differs);
  CHECK(compare_floats({0}, {0}, {0, 0}).verdict == Verdict::same);
  CHECK(compare_floats({0.0f}, {-0.0f}, {0, 0}).verdict == Verdict::same);
  CHECK(compare_floats({1e-9f}, {0}).verdict == Verdict::differs);
  CHECK(compare_floats({}, {}).verdict == Verdict::same);
}

TEST_CASE("compare: the numbers of the table") {
  const Comparison result =
      compare(Tensors().f32("x", {1, 2, 3, 4, 5, 9}, {2, 3}), Tensors().f32("x", {1, 2, 3, 4, 8, 9}, {2, 3}));
  const TensorDifference& x = result.tensors.at(0);
  CHECK(x.verdict == Verdict::differs);
  CHECK(x.elements == 6);
  CHECK(x.beyond == 1);
  CHECK(x.max_abs == 3);
  CHECK(x.relative_l2 == Approx(3 / std::sqrt(175.0)));
  CHECK(x.allowed == Approx(9e-4));
  CHECK(x.worst == std::vector<std::int64_t>{1, 1});
  CHECK((x.worst_a == 5 && x.worst_b == 8));
  CHECK(result.first_difference == "x");
  CHECK(result.elements == 6);
  CHECK(std::isinf(compare_floats({1}, {0}).relative_l2));
}

TEST_CASE("compare: NaN and infinity agree only with themselves") {
  const auto n = static_cast<float>(nan_value), i = static_cast<float>(infinite);
  const Tolerance loose{1e6, 1e6};
  CHECK(compare_floats({n, i, -i, 1}, {n, i, -i, 1}).verdict == Verdict::same);
  for (const auto& [a, b] : {std::pair{n, 1.0f}, {1.0f, n}, {i, 1.0f}, {1.0f, i}, {i, -i}, {i, n}, {n, -i}}) {
    const TensorDifference x = compare_floats({5, a}, {2, b}, loose);
    INFO(a << " against " << b);
    CHECK(x.verdict == Verdict::differs);
    CHECK((x.beyond == 1 && x.nonfinite == 1));
    CHECK(x.worst == std::vector<std::int64_t>{1});
    CHECK(x.max_abs == 3);  // of the finite pair
  }
  // An infinity in b does not widen the tolerance of the other elements.
  CHECK(compare_floats({i, 1}, {i, 2}).verdict == Verdict::differs);
}

TEST_CASE("compare: integers are equal or not") {
  const auto ints = [](std::vector<std::int64_t> v) { return Tensors().add("x", DType::i64, std::move(v)); };
  const auto bytes = [](std::vector<std::uint8_t> v) { return Tensors().add("x", DType::u8, std::move(v)); };
  const Tolerance loose{1, 100};
  CHECK(compare(ints({1, 2}), ints({1, 2})).same());
  CHECK_FALSE(compare(ints({1, 2}), ints({1, 3}), loose).same());
  const std::int64_t large = std::int64_t{1} << 53;
  const Comparison close = compare(ints({0, large + 1}), ints({0, large}), loose);
  CHECK_FALSE(close.same());  // the same double
  CHECK(close.tensors[0].worst == std::vector<std::int64_t>{1});
  CHECK(compare(ints({1, 255}), bytes({1, 255})).same());
  CHECK_FALSE(compare(bytes({7}), bytes({8}), loose).same());
  CHECK(compare(Tensors().f32("x", {7.5f}), bytes({7}), {0, 1}).same());  // one side is real: tolerance
}

TEST_CASE("compare: half, bfloat16 and double against float") {
  Tensors a, b;
  a.add<std::uint16_t>("h", DType::f16, {0x3c00, 0xc100})
      .add<std::uint16_t>("b", DType::bf16, {0x3f80, 0xc020});
  a.add<double>("d", DType::f64, {1, -2.5});
  b.f32("h", {1, -2.5f}).f32("b", {1, -2.5f}).f32("d", {1, -2.5f});
  const Comparison result = compare(a, b, {0, 0});
  CHECK(result.same());
  CHECK(result.tensors.size() == 3);
}

TEST_CASE("compare: shapes, and tensors that only one file has") {
  const Comparison result = compare(Tensors().f32("a", {1, 2}, {1, 2}).f32("only a", {1}).f32("c", {1}),
                                    Tensors().f32("only b", {1}).f32("a", {1, 2}, {2, 1}).f32("c", {1}));
  CHECK(result.tensors.size() == 2);
  CHECK(result.tensors[0].verdict == Verdict::shape_differs);
  CHECK(result.tensors[1].verdict == Verdict::same);
  CHECK(result.first_difference == "a");
  CHECK(result.only_a == std::vector<std::string>{"only a"});
  CHECK(result.only_b == std::vector<std::string>{"only b"});
  CHECK(compare(Tensors().f32("a", {1}), Tensors().f32("a", {1}).f32("b", {1})).same());
  CHECK_FALSE(compare(Tensors().f32("a", {1}), Tensors().f32("b", {1})).same());  // nothing in common
}

TEST_CASE("compare: network order, and the first stage that differs in it") {
  const auto make = [](float early, float late) {
    return Tensors().f32("late", {late}).f32("early", {early}).f32("rest", {1});
  };
  const std::map<std::string, std::string> order{
      {"order", order_to_json({"data", "early", "late", "early"})}};
  const auto names = [](const Comparison& result) {
    std::string text;
    for (const TensorDifference& t : result.tensors) text += t.name + " ";
    return text;
  };
  const auto a = make(1, 1), b = make(2, 2);
  Comparison result = compare_tensors(*a.file(order), *b.file(), {});
  CHECK(names(result) == "early late rest ");
  CHECK(result.first_difference == "early");
  result = compare_tensors(*a.file(), *b.file(order), {});
  CHECK(names(result) == "early late rest ");
  result = compare_tensors(*a.file(), *b.file(), {});
  CHECK(names(result) == "late early rest ");
  CHECK(result.first_difference == "late");
  for (const char* bad : {"early", "[1]", "{\"a\":1}", "[\"a\""})
    scratch::check_error(
        [&] {
          compare_tensors(*a.file({{"order", bad}}), *b.file(), {});
        },
        ErrorCode::bad_file, {"'order'"});
}

TEST_CASE("compare: detections that tie in both files are a set") {
  // Class, score and box; rows 1 to 3 tie.
  const std::vector<float> first{1, 0.9f, 0, 0, 9, 9}, p{2, 0.5f, 10, 10, 20, 20}, q{2, 0.5f, 30, 30, 40, 40},
      r{2, 0.5f, 50, 50, 60, 60}, near_r{2, 0.5f, 50, 50, 60, 60.001f}, last{2, 0.4f, 10, 10, 20, 20};
  const auto compare_rows = [](const std::vector<std::vector<float>>& a,
                               const std::vector<std::vector<float>>& b, const char* name = "detections") {
    const auto add = [&](Tensors& tensors, const std::vector<std::vector<float>>& rows) -> Tensors& {
      std::vector<float> values;
      for (const auto& row : rows) values.insert(values.end(), row.begin(), row.end());
      return tensors.f32(name, values, {static_cast<std::int64_t>(rows.size()), 6});
    };
    Tensors x, y;
    return compare(add(x, a), add(y, b)).tensors.at(0);
  };
  const TensorDifference same = compare_rows({first, p, q, r, last}, {first, q, near_r, p, last});
  CHECK(same.verdict == Verdict::same);
  CHECK(same.reordered == 3);
  CHECK(same.max_abs == Approx(0.001).epsilon(0.01));
  CHECK(same.worst == std::vector<std::int64_t>{2, 5});
  CHECK(compare_rows({first, p, q}, {first, p, q}).reordered == 0);
  // Another name, a tie in one file only, a box that has no partner, another class.
  CHECK(compare_rows({first, p, q}, {first, q, p}, "rows").verdict == Verdict::differs);
  CHECK(compare_rows({p, last}, {last, p}).verdict == Verdict::differs);
  CHECK(compare_rows({p, q}, {q, r}).verdict == Verdict::differs);
  CHECK(compare_rows({p, p}, {p, q}).verdict == Verdict::differs);
  auto other = q;
  other[0] = 3;
  CHECK(compare_rows({p, q}, {other, p}).verdict == Verdict::differs);
}

TEST_CASE("compare: of two RoIs with the same score either may be kept") {
  // Two classes with the background, three RoIs; the first two score the same in class 1.
  const std::vector<float> scores{0.2f, 0.8f, 0.2f, 0.8f, 0.3f, 0.7f};
  const std::vector<float> boxes{0,  0,  1,  1,  10, 10, 20, 20, 0,  0,  1,  1,
                                 11, 10, 21, 20, 0,  0,  1,  1,  50, 50, 60, 60};
  const auto compare_box = [&](std::vector<float> row, const std::vector<float>& b_scores) {
    const Tensors a = Tensors().f32("detections", std::move(row), {1, 6});
    const Tensors b = Tensors()
                          .f32("detections", {1, 0.8f, 10, 10, 20, 20}, {1, 6})
                          .f32("cls_prob", b_scores, {3, 2})
                          .f32("pred_boxes", boxes, {3, 8});
    return compare(a, b).tensors.at(0);
  };
  const TensorDifference other = compare_box({1, 0.8f, 11, 10, 21, 20}, scores);
  CHECK(other.verdict == Verdict::same);
  CHECK(other.other_of_tie == 1);
  CHECK(compare_box({1, 0.8f, 10, 10, 20, 20}, scores).other_of_tie == 0);
  CHECK(compare_box({1, 0.8f, 12, 10, 21, 20}, scores).verdict == Verdict::differs);  // nobody's box
  CHECK(compare_box({1, 0.8f, 50, 50, 60, 60}, scores).verdict == Verdict::differs);  // scores less
  std::vector<float> apart = scores;
  apart[3] = std::nextafter(0.8f, 1.0f);
  CHECK(compare_box({1, 0.8f, 11, 10, 21, 20}, apart).verdict == Verdict::differs);
  const Tensors alone = Tensors().f32("detections", {1, 0.8f, 10, 10, 20, 20}, {1, 6});
  CHECK(
      compare(Tensors().f32("detections", {1, 0.8f, 11, 10, 21, 20}, {1, 6}), alone).tensors.at(0).verdict ==
      Verdict::differs);
}

TEST_CASE("compare: a tolerance must be a number") {
  const auto a = Tensors().f32("x", {1});
  for (const double bad : {nan_value, infinite, -1.0}) {
    scratch::check_error([&] { compare(a, a, {bad, 0}); }, ErrorCode::invalid_argument, {"tolerance"});
    scratch::check_error([&] { compare(a, a, {0, bad}); }, ErrorCode::invalid_argument, {"tolerance"});
  }
}

}  // namespace frcnn
