// Reading values of a finished run, image by image.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "detector/detector.h"

namespace frcnn {

// Element `n` of an i32 value.
std::int32_t get_int(const Executable& executable, std::string_view name, std::size_t n = 0);

// Floating-point values that carry a published name: what want_tensors asks for.
bool has_published_floats(const Value& value);

// Image `n` of `batch`'s part of the value as published: only rows that count, maps as N,C,H,W. The first
// dimension of every value is a multiple of the batch.
NamedTensor published(const Executable& executable, const Value& value, std::size_t n, std::size_t batch);

std::vector<std::string> names_of(const Graph& graph, bool (*wanted)(const Value&));

// What is said of a result where no value that holds such a number can be named.
inline constexpr std::string_view nonfinite_result = "a score or box delta is not finite";

// Which value of a finished run holds the first NaN or infinity, as a sentence. Values of the proposal stage
// may hold minus infinity by design and only repeat what stands in earlier ones.
std::string first_nonfinite(const Executable& executable, std::size_t batch);

}  // namespace frcnn
