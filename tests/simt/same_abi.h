// Whether two declarations of a C function call alike, although one says void* or int where the other has a name.
#pragma once

#include <type_traits>

namespace frcnn::simt_test {

enum class Passed { pointer, integer4, integer8, real4, real8, nothing, other };

template <class T>
constexpr Passed passed() {
  if constexpr (std::is_void_v<T>) {
    return Passed::nothing;
  } else if constexpr (std::is_pointer_v<T>) {
    return Passed::pointer;
  } else if constexpr (std::is_floating_point_v<T>) {
    return sizeof(T) == 4 ? Passed::real4 : Passed::real8;
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    return sizeof(T) == 4 ? Passed::integer4 : sizeof(T) == 8 ? Passed::integer8 : Passed::other;
  } else {
    return Passed::other;
  }
}

template <class A, class B>
struct SameAbi : std::false_type {};
template <class R, class... As, class S, class... Bs>
struct SameAbi<R (*)(As...), S (*)(Bs...)> {
  static constexpr bool value = [] {
    if constexpr (sizeof...(As) != sizeof...(Bs)) {
      return false;
    } else {
      return passed<R>() == passed<S>() && ((passed<As>() == passed<Bs>() && passed<As>() != Passed::other) && ...);
    }
  }();
};

}  // namespace frcnn::simt_test
