#include "tests/simt/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "frcnn/error.h"
#include "tests/simt/sanitizers.h"

#ifndef FRCNN_SIMT_UCONTEXT
// Saves what a callee must preserve (System V ABI for x86-64, section 3.2.1) and changes stacks. swapcontext
// would do, but it makes a system call for the signal mask at every switch. The control bits of MXCSR and of
// the x87 unit are also the callee's to preserve; nothing here changes them.
extern "C" void frcnn_simt_switch(void** save, void* load);
asm(R"(
.text
.globl frcnn_simt_switch
.type frcnn_simt_switch,@function
frcnn_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size frcnn_simt_switch, .-frcnn_simt_switch
)");
#endif

namespace frcnn::simt {
namespace {

// The side of the scheduler, while a fiber runs.
struct Host {
  Fiber* running = nullptr;
  void* fake_stack = nullptr;
  const void* stack_bottom = nullptr;
  std::size_t stack_bytes = 0;
  void* race_context = nullptr;
#ifdef FRCNN_SIMT_UCONTEXT
  ucontext_t context{};
#else
  void* stack_pointer = nullptr;
#endif
};
Host host;

}  // namespace

void fiber_start();

Fiber::Fiber(void (*body)()) : body_(body) {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  mapping_bytes_ = kStackBytes + page;
  mapping_ = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapping_ == MAP_FAILED || mprotect(mapping_, page, PROT_NONE) != 0) {
    if (mapping_ != MAP_FAILED) munmap(mapping_, mapping_bytes_);
    throw Error(ErrorCode::out_of_memory, "emulator: no memory for the stack of one more CUDA thread");
  }
  stack_ = static_cast<char*>(mapping_) + page;
#ifdef FRCNN_SIMT_UCONTEXT
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  makecontext(&context_, fiber_start, 0);
#else
  // What frcnn_simt_switch will pop: six registers and the address to return to; above it a null return
  // address, which leaves the stack pointer 8 below a multiple of 16, as after a call.
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&fiber_start);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  stack_pointer_ = top;
#endif
#ifdef FRCNN_SIMT_TSAN
  race_context_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#ifdef FRCNN_SIMT_TSAN
  __tsan_destroy_fiber(race_context_);
#endif
  unpoison(stack_, kStackBytes);  // frames that were left standing
  munmap(mapping_, mapping_bytes_);
}

FRCNN_SIMT_UNCHECKED void Fiber::switch_in() {
#ifdef FRCNN_SIMT_UCONTEXT
  swapcontext(&host.context, &context_);
#else
  frcnn_simt_switch(&host.stack_pointer, stack_pointer_);
#endif
}

FRCNN_SIMT_UNCHECKED void Fiber::switch_out() {
#ifdef FRCNN_SIMT_UCONTEXT
  swapcontext(&context_, &host.context);
#else
  frcnn_simt_switch(&stack_pointer_, host.stack_pointer);
#endif
}

FRCNN_SIMT_UNCHECKED void Fiber::enter() {
  host.running = this;
#ifdef FRCNN_SIMT_ASAN
  __sanitizer_start_switch_fiber(&host.fake_stack, stack_, kStackBytes);
#endif
#ifdef FRCNN_SIMT_TSAN
  host.race_context = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(race_context_, __tsan_switch_to_fiber_no_sync);
#endif
  switch_in();
#ifdef FRCNN_SIMT_ASAN
  __sanitizer_finish_switch_fiber(host.fake_stack, nullptr, nullptr);
#endif
}

FRCNN_SIMT_UNCHECKED void Fiber::leave() {
#ifdef FRCNN_SIMT_ASAN
  __sanitizer_start_switch_fiber(&fake_stack_, host.stack_bottom, host.stack_bytes);
#endif
#ifdef FRCNN_SIMT_TSAN
  __tsan_switch_to_fiber(host.race_context, __tsan_switch_to_fiber_no_sync);
#endif
  switch_out();
#ifdef FRCNN_SIMT_ASAN
  __sanitizer_finish_switch_fiber(fake_stack_, &host.stack_bottom, &host.stack_bytes);
#endif
}

FRCNN_SIMT_UNCHECKED void fiber_start() {
#ifdef FRCNN_SIMT_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &host.stack_bottom, &host.stack_bytes);
#endif
  host.running->body_();
  __builtin_trap();
}

}  // namespace frcnn::simt
