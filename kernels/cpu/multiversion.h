// Several instruction sets in one library that is built for the oldest.
#pragma once

// Before a function: the compiler makes one version per instruction set and the loader picks. The versions
// compute the same bits, because contraction into FMA and reordering of sums are off. Loops go into the
// function itself or into FRCNN_INLINE functions; what is not inlined keeps the baseline. Sanitizers cannot
// run before the loader's choice.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FRCNN_ONE_VERSION 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FRCNN_ONE_VERSION 1
#endif
#if defined(__x86_64__) && defined(__gnu_linux__) && __has_attribute(target_clones) && \
    !defined(FRCNN_ONE_VERSION)
#define FRCNN_MULTIVERSION __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FRCNN_MULTIVERSION
#endif

#define FRCNN_INLINE inline __attribute__((always_inline))
