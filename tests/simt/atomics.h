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
#define FRCNN_SIMT_WRAP(type, sign) \
  static_cast<type>(static_cast<unsigned>(old) sign static_cast<unsigned>(value))
FRCNN_SIMT_ATOMIC(atomicAdd, int, FRCNN_SIMT_WRAP(int, +))
FRCNN_SIMT_ATOMIC(atomicAdd, unsigned, old + value)
FRCNN_SIMT_ATOMIC(atomicAdd, unsigned long long, old + value)
FRCNN_SIMT_ATOMIC(atomicAdd, float, old + value)
FRCNN_SIMT_ATOMIC(atomicAdd, double, old + value)
FRCNN_SIMT_ATOMIC(atomicSub, int, FRCNN_SIMT_WRAP(int, -))
FRCNN_SIMT_ATOMIC(atomicSub, unsigned, old - value)
FRCNN_SIMT_ATOMIC(atomicExch, int, (static_cast<void>(old), value))
FRCNN_SIMT_ATOMIC(atomicExch, unsigned, (static_cast<void>(old), value))
FRCNN_SIMT_ATOMIC(atomicExch, unsigned long long, (static_cast<void>(old), value))
FRCNN_SIMT_ATOMIC(atomicExch, float, (static_cast<void>(old), value))
#define FRCNN_SIMT_ATOMIC_INTEGERS(name, expression) \
  FRCNN_SIMT_ATOMIC(name, int, expression)           \
  FRCNN_SIMT_ATOMIC(name, unsigned, expression)      \
  FRCNN_SIMT_ATOMIC(name, unsigned long long, expression)
FRCNN_SIMT_ATOMIC_INTEGERS(atomicMin, value < old ? value : old)
FRCNN_SIMT_ATOMIC_INTEGERS(atomicMax, old < value ? value : old)
FRCNN_SIMT_ATOMIC_INTEGERS(atomicAnd, old& value)
FRCNN_SIMT_ATOMIC_INTEGERS(atomicOr, old | value)
FRCNN_SIMT_ATOMIC_INTEGERS(atomicXor, old ^ value)
FRCNN_SIMT_ATOMIC(atomicMin, long long, value < old ? value : old)
FRCNN_SIMT_ATOMIC(atomicMax, long long, old < value ? value : old)
FRCNN_SIMT_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)
FRCNN_SIMT_ATOMIC(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)
#undef FRCNN_SIMT_ATOMIC_INTEGERS
#undef FRCNN_SIMT_ATOMIC
#undef FRCNN_SIMT_WRAP

#define FRCNN_SIMT_CAS(type)                                                                          \
  inline type atomicCAS(type* address, type expected, type value) {                                   \
    __atomic_compare_exchange(address, &expected, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
    return expected;                                                                                  \
  }
FRCNN_SIMT_CAS(int)
FRCNN_SIMT_CAS(unsigned)
FRCNN_SIMT_CAS(unsigned long long)
FRCNN_SIMT_CAS(unsigned short)
#undef FRCNN_SIMT_CAS
