// CUDA's atomic functions: relaxed, so ThreadSanitizer takes no order from them, and each returns the value
// before.
#pragma once

namespace frcnn::simt {

template <class T, class Change>
T atomic_change(T* address, Change change) {
  T before;
  __atomic_load(address, &before, __ATOMIC_RELAXED);
  for (;;) {
    T after = change(before);
    if (__atomic_compare_exchange(address, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return before;
  }
}

}  // namespace frcnn::simt

#define FRCNN_SIMT_ATOMIC(name, type, expression)                                                 \
  inline type name(type* address, type value) {                                                   \
    return frcnn::simt::atomic_change(address, [value](type old) -> type { return expression; }); \
  }
// Signed sums wrap, as the hardware's do.
FRCNN_SIMT_ATOMIC(atomicAdd, int, static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)))
FRCNN_SIMT_ATOMIC(atomicAdd, unsigned, old + value)
FRCNN_SIMT_ATOMIC(atomicAdd, unsigned long long, old + value)
FRCNN_SIMT_ATOMIC(atomicAdd, float, old + value)
FRCNN_SIMT_ATOMIC(atomicExch, unsigned, (static_cast<void>(old), value))
#define FRCNN_SIMT_ATOMIC_INTEGERS(name, expression) \
  FRCNN_SIMT_ATOMIC(name, int, expression)           \
  FRCNN_SIMT_ATOMIC(name, unsigned, expression)      \
  FRCNN_SIMT_ATOMIC(name, unsigned long long, expression)
FRCNN_SIMT_ATOMIC_INTEGERS(atomicMin, value < old ? value : old)
FRCNN_SIMT_ATOMIC_INTEGERS(atomicMax, old < value ? value : old)
FRCNN_SIMT_ATOMIC_INTEGERS(atomicAnd, old& value)
FRCNN_SIMT_ATOMIC_INTEGERS(atomicOr, old | value)
FRCNN_SIMT_ATOMIC_INTEGERS(atomicXor, old ^ value)
#undef FRCNN_SIMT_ATOMIC_INTEGERS
#undef FRCNN_SIMT_ATOMIC

inline unsigned atomicCAS(unsigned* address, unsigned expected, unsigned value) {
  __atomic_compare_exchange(address, &expected, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
