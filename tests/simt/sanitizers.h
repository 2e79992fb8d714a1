// What the emulator tells AddressSanitizer and ThreadSanitizer, and nothing where neither is built in.
//
// ThreadSanitizer sees every fiber as a thread. Fiber switches are announced as carrying no order, so the
// only happens-before edges are the ones given here by release() and acquire(): block barriers, __syncwarp
// and the borders of a launch. The emulator's own bookkeeping runs under Quiet, or it would drown the
// kernels' races.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define FRCNN_SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FRCNN_SIMT_ASAN 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#define FRCNN_SIMT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FRCNN_SIMT_TSAN 1
#endif
#endif

#ifdef FRCNN_SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef FRCNN_SIMT_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
// Not inlined, because an inlined body would be instrumented with its caller.
#define FRCNN_SIMT_UNCHECKED __attribute__((no_sanitize("thread"), noinline))
#else
#define FRCNN_SIMT_UNCHECKED
#endif

namespace frcnn::simt {

#ifdef FRCNN_SIMT_TSAN
inline constexpr bool kRaceCheck = true;
inline void release(void* token) { __tsan_release(token); }
inline void acquire(void* token) { __tsan_acquire(token); }

// Accesses of this fiber are not checked while one of these lives. They nest, and belong to the fiber, so a
// fiber may be switched away while it holds one.
class Quiet {
 public:
  Quiet() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Quiet() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
};
#else
inline constexpr bool kRaceCheck = false;
inline void release(void*) {}
inline void acquire(void*) {}
class Quiet {
 public:
  Quiet() {}
  ~Quiet() {}  // not trivial, so that an unused one is no warning
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
};
#endif

#ifdef FRCNN_SIMT_ASAN
inline constexpr bool kAddressCheck = true;
inline void poison(const void* begin, std::size_t bytes) { __asan_poison_memory_region(begin, bytes); }
inline void unpoison(const void* begin, std::size_t bytes) { __asan_unpoison_memory_region(begin, bytes); }
#else
inline constexpr bool kAddressCheck = false;
inline void poison(const void*, std::size_t) {}
inline void unpoison(const void*, std::size_t) {}
#endif

}  // namespace frcnn::simt
