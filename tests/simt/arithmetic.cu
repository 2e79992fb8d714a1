#include "tests/simt/arithmetic.h"

#include <vector>

#include "box_math.h"
#include "launch.h"

namespace frcnn::simt_test {
namespace {

template <class T>
constexpr Function::Type type_of() {
  if constexpr (std::is_same_v<T, float>) return Function::Type::f32;
  if constexpr (std::is_same_v<T, double>) return Function::Type::f64;
  if constexpr (std::is_same_v<T, unsigned>) return Function::Type::u32;
  return Function::Type::u16;
}

template <class F>
__global__ void function_kernel(int n, const typename F::In* a, const typename F::In* b,
                                const typename F::In* c, typename F::Out* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = F::of(a[i], b[i], c[i]);
}

template <class F>
Function entry(const char* name, int ulps, Function::Domain domain) {
  return {name,
          type_of<typename F::In>(),
          type_of<typename F::Out>(),
          domain,
          ulps,
          [](int n, const void* a, const void* b, const void* c, void* out) {
            using In = typename F::In;
            cuda::launch(function_kernel<F>, dim3((n + 127) / 128), dim3(128), 0, nullptr, n,
                         static_cast<const In*>(a), static_cast<const In*>(b), static_cast<const In*>(c),
                         static_cast<typename F::Out*>(out));
          }};
}

__device__ unsigned long long joined(unsigned high, unsigned low) {
  return static_cast<unsigned long long>(high) << 32 | low;
}

// One struct per function: in(a, b, c) -> out.
#define FRCNN_FUNCTION(name, in, out, value)                                                        \
  struct name {                                                                                     \
    using In = in;                                                                                  \
    using Out = out;                                                                                \
    static __device__ Out of([[maybe_unused]] In a, [[maybe_unused]] In b, [[maybe_unused]] In c) { \
      return value;                                                                                 \
    }                                                                                               \
  };
using u16 = unsigned short;
using u32 = unsigned;

FRCNN_FUNCTION(fadd_rn, float, float, __fadd_rn(a, b))
FRCNN_FUNCTION(fsub_rn, float, float, __fsub_rn(a, b))
FRCNN_FUNCTION(fmul_rn, float, float, __fmul_rn(a, b))
FRCNN_FUNCTION(fdiv_rn, float, float, __fdiv_rn(a, b))
FRCNN_FUNCTION(fmaf_rn, float, float, __fmaf_rn(a, b, c))
FRCNN_FUNCTION(frcp_rn, float, float, __frcp_rn(a))
FRCNN_FUNCTION(fsqrt_rn, float, float, __fsqrt_rn(a))
FRCNN_FUNCTION(floor_f32, float, float, floorf(a))
FRCNN_FUNCTION(ceil_f32, float, float, ceilf(a))
FRCNN_FUNCTION(round_f32, float, float, roundf(a))
FRCNN_FUNCTION(trunc_f32, float, float, truncf(a))
FRCNN_FUNCTION(rint_f32, float, float, rintf(a))
// Which zero the smaller of two zeros is, is not said: the sum with +0 forgets it.
FRCNN_FUNCTION(min_f32, float, float, __fadd_rn(min(a, b), 0.0f))
FRCNN_FUNCTION(max_f32, float, float, __fadd_rn(max(a, b), 0.0f))
FRCNN_FUNCTION(saturate_f32, float, float, __fadd_rn(__saturatef(a), 0.0f))
FRCNN_FUNCTION(exp_of_the_boxes, float, float, exp_f32(a))
FRCNN_FUNCTION(dadd_rn, double, double, __dadd_rn(a, b))
FRCNN_FUNCTION(dsub_rn, double, double, __dsub_rn(a, b))
FRCNN_FUNCTION(dmul_rn, double, double, __dmul_rn(a, b))
FRCNN_FUNCTION(ddiv_rn, double, double, __ddiv_rn(a, b))
FRCNN_FUNCTION(dfma_rn, double, double, __fma_rn(a, b, c))
FRCNN_FUNCTION(dsqrt_rn, double, double, __dsqrt_rn(a))

FRCNN_FUNCTION(f32_to_f16, float, u16, __half_as_ushort(__float2half_rn(a)))
FRCNN_FUNCTION(f32_to_bf16, float, u16, __bfloat16_as_ushort(__float2bfloat16_rn(a)))
FRCNN_FUNCTION(f16_to_f32, u16, float, __half2float(__ushort_as_half(a)))
FRCNN_FUNCTION(bf16_to_f32, u16, float, __bfloat162float(__ushort_as_bfloat16(a)))
FRCNN_FUNCTION(f16_add, u16, u16, __half_as_ushort(__hadd(__ushort_as_half(a), __ushort_as_half(b))))
FRCNN_FUNCTION(f16_sub, u16, u16, __half_as_ushort(__hsub(__ushort_as_half(a), __ushort_as_half(b))))
FRCNN_FUNCTION(f16_mul, u16, u16, __half_as_ushort(__hmul(__ushort_as_half(a), __ushort_as_half(b))))
FRCNN_FUNCTION(bf16_add, u16, u16, __bfloat16_as_ushort(__hadd(__ushort_as_bfloat16(a), __ushort_as_bfloat16(b))))
FRCNN_FUNCTION(bf16_sub, u16, u16, __bfloat16_as_ushort(__hsub(__ushort_as_bfloat16(a), __ushort_as_bfloat16(b))))
FRCNN_FUNCTION(bf16_mul, u16, u16, __bfloat16_as_ushort(__hmul(__ushort_as_bfloat16(a), __ushort_as_bfloat16(b))))
FRCNN_FUNCTION(f32_to_i32_rn, float, u32, static_cast<u32>(__float2int_rn(a)))
FRCNN_FUNCTION(f32_to_i32_rz, float, u32, static_cast<u32>(__float2int_rz(a)))
FRCNN_FUNCTION(f32_to_i32_rd, float, u32, static_cast<u32>(__float2int_rd(a)))
FRCNN_FUNCTION(f32_to_i32_ru, float, u32, static_cast<u32>(__float2int_ru(a)))
FRCNN_FUNCTION(f32_to_u32_rn, float, u32, __float2uint_rn(a))
FRCNN_FUNCTION(f32_to_u32_rz, float, u32, __float2uint_rz(a))
FRCNN_FUNCTION(f64_to_i32_rn, double, u32, static_cast<u32>(__double2int_rn(a)))
FRCNN_FUNCTION(f64_to_i32_rz, double, u32, static_cast<u32>(__double2int_rz(a)))
FRCNN_FUNCTION(f64_to_f32, double, float, __double2float_rn(a))
FRCNN_FUNCTION(i32_to_f32, u32, float, __int2float_rn(static_cast<int>(a)))
FRCNN_FUNCTION(u32_to_f32, u32, float, __uint2float_rn(a))

FRCNN_FUNCTION(f32_to_bits, float, u32, __float_as_uint(a))
FRCNN_FUNCTION(bits_to_f32, u32, float, __uint_as_float(a))
FRCNN_FUNCTION(f64_through_bits, double, double, __longlong_as_double(__double_as_longlong(a)))
FRCNN_FUNCTION(popc, u32, u32, static_cast<u32>(__popc(a)))
FRCNN_FUNCTION(clz, u32, u32, static_cast<u32>(__clz(static_cast<int>(a))))
FRCNN_FUNCTION(ffs, u32, u32, static_cast<u32>(__ffs(static_cast<int>(a))))
FRCNN_FUNCTION(popcll, u32, u32, static_cast<u32>(__popcll(joined(a, b))))
FRCNN_FUNCTION(clzll, u32, u32, static_cast<u32>(__clzll(static_cast<long long>(joined(a, b)))))
FRCNN_FUNCTION(ffsll, u32, u32, static_cast<u32>(__ffsll(static_cast<long long>(joined(a, b)))))
FRCNN_FUNCTION(brev, u32, u32, __brev(a))
// The fourth bit of a nibble is not documented.
FRCNN_FUNCTION(byte_perm, u32, u32, __byte_perm(a, b, c & 0x7777u))
FRCNN_FUNCTION(funnelshift_l, u32, u32, __funnelshift_l(a, b, c))
FRCNN_FUNCTION(funnelshift_r, u32, u32, __funnelshift_r(a, b, c))
FRCNN_FUNCTION(mulhi, u32, u32, static_cast<u32>(__mulhi(static_cast<int>(a), static_cast<int>(b))))
FRCNN_FUNCTION(umulhi, u32, u32, __umulhi(a, b))

FRCNN_FUNCTION(exp_library, float, float, expf(a))
FRCNN_FUNCTION(exp_fast, float, float, __expf(a))
FRCNN_FUNCTION(log_library, float, float, logf(a))
FRCNN_FUNCTION(log_fast, float, float, __logf(a))
FRCNN_FUNCTION(rsqrt_f32, float, float, rsqrtf(a))
FRCNN_FUNCTION(frsqrt_rn, float, float, __frsqrt_rn(a))
FRCNN_FUNCTION(fdividef_fast, float, float, __fdividef(a, b))
FRCNN_FUNCTION(exp_f64, double, double, exp(a))
FRCNN_FUNCTION(log_f64, double, double, log(a))
FRCNN_FUNCTION(pow_f64, double, double, pow(a, -0.6))
FRCNN_FUNCTION(rsqrt_f64, double, double, rsqrt(a))
#undef FRCNN_FUNCTION

}  // namespace

// The emulator's approximations are glibc's, right to 1 ulp, which is added to what CUDA states.
std::span<const Function> functions() {
  constexpr auto all = Function::Domain::all, moderate = Function::Domain::moderate,
                 large = Function::Domain::large;
#define FRCNN_EXACT(name) entry<name>(#name, 0, all)
  static const std::vector<Function> table{
      FRCNN_EXACT(fadd_rn),
      FRCNN_EXACT(fsub_rn),
      FRCNN_EXACT(fmul_rn),
      FRCNN_EXACT(fdiv_rn),
      FRCNN_EXACT(fmaf_rn),
      FRCNN_EXACT(frcp_rn),
      FRCNN_EXACT(fsqrt_rn),
      FRCNN_EXACT(floor_f32),
      FRCNN_EXACT(ceil_f32),
      FRCNN_EXACT(round_f32),
      FRCNN_EXACT(trunc_f32),
      FRCNN_EXACT(rint_f32),
      FRCNN_EXACT(min_f32),
      FRCNN_EXACT(max_f32),
      FRCNN_EXACT(saturate_f32),
      FRCNN_EXACT(exp_of_the_boxes),
      FRCNN_EXACT(dadd_rn),
      FRCNN_EXACT(dsub_rn),
      FRCNN_EXACT(dmul_rn),
      FRCNN_EXACT(ddiv_rn),
      FRCNN_EXACT(dfma_rn),
      FRCNN_EXACT(dsqrt_rn),
      FRCNN_EXACT(f32_to_f16),
      FRCNN_EXACT(f32_to_bf16),
      FRCNN_EXACT(f16_to_f32),
      FRCNN_EXACT(bf16_to_f32),
      FRCNN_EXACT(f16_add),
      FRCNN_EXACT(f16_sub),
      FRCNN_EXACT(f16_mul),
      FRCNN_EXACT(bf16_add),
      FRCNN_EXACT(bf16_sub),
      FRCNN_EXACT(bf16_mul),
      FRCNN_EXACT(f32_to_i32_rn),
      FRCNN_EXACT(f32_to_i32_rz),
      FRCNN_EXACT(f32_to_i32_rd),
      FRCNN_EXACT(f32_to_i32_ru),
      FRCNN_EXACT(f32_to_u32_rn),
      FRCNN_EXACT(f32_to_u32_rz),
      FRCNN_EXACT(f64_to_i32_rn),
      FRCNN_EXACT(f64_to_i32_rz),
      FRCNN_EXACT(f64_to_f32),
      FRCNN_EXACT(i32_to_f32),
      FRCNN_EXACT(u32_to_f32),
      FRCNN_EXACT(f32_to_bits),
      FRCNN_EXACT(bits_to_f32),
      FRCNN_EXACT(f64_through_bits),
      FRCNN_EXACT(popc),
      FRCNN_EXACT(clz),
      FRCNN_EXACT(ffs),
      FRCNN_EXACT(popcll),
      FRCNN_EXACT(clzll),
      FRCNN_EXACT(ffsll),
      FRCNN_EXACT(brev),
      FRCNN_EXACT(byte_perm),
      FRCNN_EXACT(funnelshift_l),
      FRCNN_EXACT(funnelshift_r),
      FRCNN_EXACT(mulhi),
      FRCNN_EXACT(umulhi),
      entry<exp_library>("exp_library", 3, moderate),
      entry<exp_fast>("exp_fast", 14, moderate),  // 2 + 1.173 |x|, |x| <= 10
      entry<log_library>("log_library", 2, large),
      entry<log_fast>("log_fast", 4, large),
      entry<rsqrt_f32>("rsqrt_f32", 3, large),
      entry<frsqrt_rn>("frsqrt_rn", 0, large),
      entry<fdividef_fast>("fdividef_fast", 3, large),
      entry<exp_f64>("exp_f64", 2, moderate),
      entry<log_f64>("log_f64", 2, large),
      entry<pow_f64>("pow_f64", 3, large),
      entry<rsqrt_f64>("rsqrt_f64", 2, large)};
#undef FRCNN_EXACT
  return table;
}

}  // namespace frcnn::simt_test
