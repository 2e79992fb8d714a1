#include "model_io/compare.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "frcnn/error.h"
#include "graph/dtype.h"

namespace frcnn {
namespace {

template <typename T>
T load(const StoredTensor& tensor, std::uint64_t index) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(tensor.data) + index * sizeof(T), sizeof(T));
  return value;
}

std::int64_t whole(const StoredTensor& tensor, std::uint64_t index) {
  if (tensor.dtype == DType::i64) return load<std::int64_t>(tensor, index);
  return tensor.dtype == DType::i32 ? load<std::int32_t>(tensor, index) : load<std::uint8_t>(tensor, index);
}

double real(const StoredTensor& tensor, std::uint64_t index) {
  switch (tensor.dtype) {
    case DType::f32:
      return load<float>(tensor, index);
    case DType::f16:
      return f16_to_f32(load<std::uint16_t>(tensor, index));
    case DType::bf16:
      return bf16_to_f32(load<std::uint16_t>(tensor, index));
    case DType::f64:
      return load<double>(tensor, index);
    default:
      return static_cast<double>(whole(tensor, index));
  }
}

// "1x2x3": the coordinates of an element of a row-major tensor.
std::vector<std::int64_t> coordinates(std::uint64_t index, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> at(shape.size());
  for (std::size_t i = shape.size(); i-- > 0;) {
    at[i] = static_cast<std::int64_t>(index % static_cast<std::uint64_t>(shape[i]));
    index /= static_cast<std::uint64_t>(shape[i]);
  }
  return at;
}

double largest(const StoredTensor& tensor, std::uint64_t elements) {
  double most = 0;
  for (std::uint64_t i = 0; i < elements; ++i)
    if (const double x = std::abs(real(tensor, i)); std::isfinite(x)) most = std::max(most, x);
  return most;
}

// The state of one pass over a pair of tensors of equal shape.
struct Pass {
  TensorDifference& out;
  double squares = 0, squares_b = 0;
  std::uint64_t worst = 0;
  bool found = false;

  void mark(std::uint64_t index, double x, double y) {
    worst = index;
    out.worst_a = x;
    out.worst_b = y;
    found = true;
  }

  void add(std::uint64_t index, double x, double y, bool equal) {
    if (std::isfinite(x) && std::isfinite(y)) {
      const double error = std::abs(x - y);
      squares += error * error;
      squares_b += y * y;
      if (error > out.max_abs) {
        out.max_abs = error;
        if (out.nonfinite == 0) mark(index, x, y);
      }
      if (!equal && !(error <= out.allowed && out.allowed > 0)) {
        ++out.beyond;
        if (!found) mark(index, x, y);  // integers beyond 2^53 that are the same double
      }
    } else if (!equal) {
      ++out.beyond;
      if (out.nonfinite++ == 0) mark(index, x, y);
    }
  }
};

constexpr std::uint64_t detection_columns = 6;  // class, score, x1, y1, x2, y2

bool are_detections(const StoredTensor& a, const StoredTensor& b) {
  return a.name == "detections" && a.shape == b.shape && a.shape.size() == 2 &&
         a.shape[1] == static_cast<std::int64_t>(detection_columns) && !is_integer(a.dtype) &&
         !is_integer(b.dtype);
}

// Detections read once; box coordinates are in columns 2 to 5.
using Row = std::array<double, detection_columns>;

std::vector<Row> rows_of(const StoredTensor& t) {
  std::vector<Row> rows(static_cast<std::size_t>(t.shape[0]));
  for (std::uint64_t i = 0; i < rows.size() * detection_columns; ++i)
    rows[i / detection_columns][i % detection_columns] = real(t, i);
  return rows;
}

bool ties(const Row& x, const Row& y) { return x[0] == y[0] && x[1] == y[1]; }

double box_distance(const Row& x, const Row& y) {
  double most = 0;
  for (std::size_t c = 2; c < detection_columns; ++c) most = std::max(most, std::abs(x[c] - y[c]));
  return most;
}

// Rows that follow each other and tie in both files have no order: those of a are paired with b's by their
// boxes. Returns how many moved.
std::uint64_t pair_ties(std::vector<Row>& a, const std::vector<Row>& b) {
  const std::vector<Row> given = a;
  for (std::size_t first = 0, last; first < b.size(); first = last) {
    for (last = first + 1; last < b.size() && ties(a[first], a[last]) && ties(b[first], b[last]); ++last) {
    }
    for (std::size_t row = first; row < last; ++row) {
      const auto best = std::min_element(
          a.begin() + static_cast<std::ptrdiff_t>(row), a.begin() + static_cast<std::ptrdiff_t>(last),
          [&](const Row& x, const Row& y) { return box_distance(x, b[row]) < box_distance(y, b[row]); });
      std::swap(*best, a[row]);
    }
  }
  std::uint64_t moved = 0;
  for (std::size_t row = 0; row < a.size(); ++row) moved += a[row] != given[row] ? 1 : 0;
  return moved;
}

// Of two RoIs with equal scores either may suppress the other. Where a kept the other one, b's row becomes
// what b itself computed for that RoI. Returns how many did.
std::uint64_t accept_ties(const std::vector<Row>& a, std::vector<Row>& b, const StoredTensor* scores,
                          const StoredTensor* boxes, double allowed) {
  if (!scores || !boxes || scores->shape.size() != 2 || boxes->shape.size() != 2 ||
      scores->shape[0] != boxes->shape[0] || is_integer(scores->dtype) || is_integer(boxes->dtype))
    return 0;
  const auto classes = static_cast<std::uint64_t>(scores->shape[1]),
             width = static_cast<std::uint64_t>(boxes->shape[1]);
  if (width != 4 && width != 4 * classes) return 0;
  std::uint64_t accepted = 0;
  for (std::size_t row = 0; row < b.size(); ++row) {
    if (a[row][0] != b[row][0] || !(b[row][0] >= 0 && b[row][0] < static_cast<double>(classes))) continue;
    if (box_distance(a[row], b[row]) <= allowed) continue;
    const auto label = static_cast<std::uint64_t>(b[row][0]);
    for (std::uint64_t roi = 0; roi < static_cast<std::uint64_t>(scores->shape[0]); ++roi) {
      if (real(*scores, roi * classes + label) != b[row][1]) continue;
      Row other = b[row];
      for (std::uint64_t c = 0; c < 4; ++c)
        other[c + 2] = real(*boxes, roi * width + (width == 4 ? 0 : 4 * label) + c);
      if (!(box_distance(a[row], other) <= allowed)) continue;
      b[row] = other;
      ++accepted;
      break;
    }
  }
  return accepted;
}

TensorDifference compare(const StoredTensor& a, const StoredTensor& b, const Tolerance& tolerance,
                         const SafetensorsFile& file_b) {
  TensorDifference out;
  out.name = a.name;
  out.dtype_a = a.dtype;
  out.dtype_b = b.dtype;
  out.shape_a = a.shape;
  out.shape_b = b.shape;
  if (a.shape != b.shape) {
    out.verdict = Verdict::shape_differs;
    return out;
  }
  const bool integers = is_integer(a.dtype) && is_integer(b.dtype);
  out.elements = a.bytes / size_of(a.dtype);
  out.allowed = integers ? 0 : tolerance.absolute + tolerance.relative * largest(b, out.elements);
  std::vector<Row> rows_a, rows_b;
  if (are_detections(a, b)) {
    rows_a = rows_of(a);
    rows_b = rows_of(b);
    out.reordered = pair_ties(rows_a, rows_b);
    out.other_of_tie =
        accept_ties(rows_a, rows_b, file_b.find("cls_prob"), file_b.find("pred_boxes"), out.allowed);
  }
  const auto value = [](const StoredTensor& t, const std::vector<Row>& rows, std::uint64_t i) {
    return rows.empty() ? real(t, i) : rows[i / detection_columns][i % detection_columns];
  };
  Pass pass{out};
  for (std::uint64_t i = 0; i < out.elements; ++i) {
    const double x = value(a, rows_a, i), y = value(b, rows_b, i);
    const bool equal = integers ? whole(a, i) == whole(b, i) : x == y || (std::isnan(x) && std::isnan(y));
    pass.add(i, x, y, equal);
  }
  const double infinite = std::numeric_limits<double>::infinity();
  out.relative_l2 = pass.squares == 0     ? 0
                    : pass.squares_b == 0 ? infinite
                                          : std::sqrt(pass.squares / pass.squares_b);
  if (pass.found) out.worst = coordinates(pass.worst, a.shape);
  if (out.beyond > 0) out.verdict = Verdict::differs;
  return out;
}

// Names in a file's "order" entry; empty when it has none.
std::vector<std::string> listed_order(const SafetensorsFile& file) {
  const auto found = file.metadata().find("order");
  if (found == file.metadata().end()) return {};
  const auto list = nlohmann::json::parse(found->second, nullptr, false);
  const bool names =
      list.is_array() && std::all_of(list.begin(), list.end(), [](const auto& x) { return x.is_string(); });
  if (!names)
    throw Error(ErrorCode::bad_file,
                file.path() + ": the metadata entry 'order' is not a JSON list of tensor names");
  return list.get<std::vector<std::string>>();
}

// Every tensor of a once, in network order.
std::vector<const StoredTensor*> network_order(const SafetensorsFile& a, const SafetensorsFile& b) {
  std::vector<std::string> order = listed_order(a);
  if (order.empty()) order = listed_order(b);
  for (const StoredTensor& tensor : a.tensors()) order.push_back(tensor.name);
  std::vector<const StoredTensor*> tensors;
  std::set<std::string> seen;
  for (const std::string& name : order)
    if (const StoredTensor* tensor = a.find(name); tensor && seen.insert(name).second)
      tensors.push_back(tensor);
  return tensors;
}

}  // namespace

Comparison compare_tensors(const SafetensorsFile& a, const SafetensorsFile& b, const Tolerance& tolerance) {
  const auto legal = [](double x) { return std::isfinite(x) && x >= 0; };
  if (!legal(tolerance.relative) || !legal(tolerance.absolute))
    throw Error(ErrorCode::invalid_argument, "a tolerance must be a finite number of at least 0");
  Comparison result;
  for (const StoredTensor* tensor : network_order(a, b)) {
    const StoredTensor* other = b.find(tensor->name);
    if (other == nullptr) {
      result.only_a.push_back(tensor->name);
      continue;
    }
    result.tensors.push_back(compare(*tensor, *other, tolerance, b));
    a.release_pages(*tensor);
    b.release_pages(*other);
    const TensorDifference& difference = result.tensors.back();
    result.elements += difference.elements;
    if (difference.verdict != Verdict::same && result.first_difference.empty())
      result.first_difference = difference.name;
  }
  for (const StoredTensor& tensor : b.tensors())
    if (a.find(tensor.name) == nullptr) result.only_b.push_back(tensor.name);
  return result;
}

std::string order_to_json(const std::vector<std::string>& names) { return nlohmann::json(names).dump(); }

}  // namespace frcnn
