// CUDA's vector types with CUDA's sizes and alignments (CUDA C++ Programming Guide, "Built-in Vector Types"),
// in the global namespace as there.
#pragma once

#define FRCNN_SIMT_VECTOR(name, type, align1, align2, align4)                 \
  struct alignas(align1) name##1 {                                            \
    type x;                                                                   \
  };                                                                          \
  struct alignas(align2) name##2 {                                            \
    type x, y;                                                                \
  };                                                                          \
  struct alignas(align1) name##3 {                                            \
    type x, y, z;                                                             \
  };                                                                          \
  struct alignas(align4) name##4 {                                            \
    type x, y, z, w;                                                          \
  };                                                                          \
  inline name##1 make_##name##1(type x) { return {x}; }                       \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }            \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

FRCNN_SIMT_VECTOR(char, signed char, 1, 2, 4)
FRCNN_SIMT_VECTOR(uchar, unsigned char, 1, 2, 4)
FRCNN_SIMT_VECTOR(short, short, 2, 4, 8)
FRCNN_SIMT_VECTOR(ushort, unsigned short, 2, 4, 8)
FRCNN_SIMT_VECTOR(int, int, 4, 8, 16)
FRCNN_SIMT_VECTOR(uint, unsigned, 4, 8, 16)
FRCNN_SIMT_VECTOR(longlong, long long, 8, 16, 16)
FRCNN_SIMT_VECTOR(ulonglong, unsigned long long, 8, 16, 16)
FRCNN_SIMT_VECTOR(float, float, 4, 8, 16)
FRCNN_SIMT_VECTOR(double, double, 8, 16, 16)
#undef FRCNN_SIMT_VECTOR

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
