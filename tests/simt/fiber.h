// A stack of its own for every emulated CUDA thread, and the switch between it and the scheduler.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(FRCNN_SIMT_UCONTEXT)
#define FRCNN_SIMT_UCONTEXT 1
#endif

#ifdef FRCNN_SIMT_UCONTEXT
#include <ucontext.h>
#endif

namespace frcnn::simt {

// Bound to the OS thread that made it. One fiber of the process runs at a time; the launch lock sees to that.
class Fiber {
 public:
  // `body` runs on the fiber's stack at the first enter() and must never return. Throws Error(out_of_memory).
  explicit Fiber(void (*body)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void enter();  // from the scheduler: run until the fiber leaves
  void leave();  // from the fiber: back to the scheduler, until the next enter()

  // Plain fibers need little; a sanitizer's frames and its error report need more. Pages are committed when
  // touched.
  static constexpr std::size_t kStackBytes = 256 * 1024;

 private:
  friend void fiber_start();
  void switch_in();
  void switch_out();

  void (*body_)();
  void* mapping_ = nullptr;  // one guard page, then the stack
  std::size_t mapping_bytes_ = 0;
  char* stack_ = nullptr;
  void* fake_stack_ = nullptr;    // AddressSanitizer's
  void* race_context_ = nullptr;  // ThreadSanitizer's
#ifdef FRCNN_SIMT_UCONTEXT
  ucontext_t context_{};
#else
  void* stack_pointer_ = nullptr;
#endif
};

}  // namespace frcnn::simt
