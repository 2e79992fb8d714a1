// What a reader may take of time and memory for a file that was made to harm it.
#pragma once

#include <malloc.h>

#include <cstddef>
#include <ctime>
#include <exception>
#include <fstream>
#include <string>

#include "catch.h"

namespace frcnn::test {

#if defined(__has_feature)  // clang's way to tell
#define FRCNN_FEATURE(name) __has_feature(name)
#else
#define FRCNN_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || FRCNN_FEATURE(address_sanitizer) || \
    FRCNN_FEATURE(thread_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#undef FRCNN_FEATURE

// The most that the process has used since it was reset last, which Linux does for whoever writes 5 to
// clear_refs: an earlier, larger test must not hide what this one takes, nor must memory that was freed and
// kept for later.
inline void reset_peak() {
  ::malloc_trim(0);
  std::ofstream file("/proc/self/clear_refs");
  file << 5 << std::flush;
  if (!file) WARN("the peak of memory cannot be reset here: it counts from the start of the process");
}

inline long peak_kilobytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (long kilobytes = 0; word == "VmHWM:" && status >> kilobytes) return kilobytes;
  FAIL("no peak of memory in /proc/self/status");
  return 0;
}

// Does `action`, which reads a file of this size that was made to harm, and passes on what it throws. Fails
// the test where that takes more than a second of the processor, or more memory than twice the file (its text
// and what is kept of it) and what objects may take: each reader bounds their number, so a file of tiny ones
// costs many times its size, but 60 MB at most (measured). Sanitizers take several times both.
template <typename Action>
void within_bounds(std::size_t file_bytes, const Action& action) {
  reset_peak();
  const long before = peak_kilobytes();
  const std::clock_t start = std::clock();
  std::exception_ptr thrown;
  try {
    action();
  } catch (...) {
    thrown = std::current_exception();
  }
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  const long kilobytes = peak_kilobytes() - before;
  constexpr long objects = 80 << 10;
  CHECK(seconds < (sanitized ? 10 : 1));
  CHECK(kilobytes < (sanitized ? 4 : 1) * (objects + static_cast<long>(file_bytes >> 9)));
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace frcnn::test
