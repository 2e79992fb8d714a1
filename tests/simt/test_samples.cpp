// Kernels of the product's kinds, bit for bit, in every order.
#include <random>
#include <vector>

#include "catch.h"
#include "tests/simt/buffer.h"
#include "tests/simt/samples.h"

using namespace frcnn::simt_test;

namespace {

template <class T>
void check_gemm(int m, int n, int k) {
  std::mt19937 random(static_cast<unsigned>(m * 10000 + n * 100 + k));
  Buffer<T> a, b;
  Buffer<float> c(static_cast<std::size_t>(m * n), -1.0f);
  std::vector<float> fa, fb;
  const auto fill = [&](Buffer<T>& to, std::vector<float>& copy, int count) {
    for (int i = 0; i < count; ++i) {
      copy.push_back(static_cast<float>(static_cast<int>(random() % 17) - 8));
      to.push_back(T(copy.back()));
    }
  };
  fill(a, fa, m * k);
  fill(b, fb, n * k);
  sample_gemm(a.data(), b.data(), c.data(), m, n, k, nullptr);
  synchronize();
  int wrong = 0;
  for (int row = 0; row < m; ++row) {
    for (int column = 0; column < n; ++column) {
      float sum = 0;
      for (int i = 0; i < k; ++i)
        sum += fa[static_cast<std::size_t>(row * k + i)] * fb[static_cast<std::size_t>(column * k + i)];
      wrong += c[static_cast<std::size_t>(row * n + column)] != sum;
    }
  }
  INFO(m << "x" << n << "x" << k);
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("a tensor-core GEMM with asynchronous copies is exact on integers, in every order") {
  in_every_order([] {
    check_gemm<half>(65, 50, 40);
    check_gemm<half>(1, 1, 8);
    check_gemm<half>(32, 32, 16);
    check_gemm<half>(33, 31, 56);
    check_gemm<nv_bfloat16>(33, 31, 56);
  });
}

TEST_CASE("a reduction over all blocks gives the same bits in every order") {
  std::vector<float> sums;
  for (const int n : {1, 95, 1000}) {
    sums.clear();
    in_every_order([&] {
      Buffer<float> x(static_cast<std::size_t>(n)), partial(4), sum(1, -1.0f);
      Buffer<unsigned> counter(1, 0u);
      double expected = 0;
      for (std::size_t i = 0; i < x.size(); ++i) expected += x[i] = 1.0f / static_cast<float>(i + 1);
      sample_sum(x.data(), n, 4, partial.data(), counter.data(), sum.data(), nullptr);
      synchronize();
      CHECK(counter[0] == 0u);
      CHECK(sum[0] == Approx(expected).epsilon(1e-6));
      sums.push_back(sum[0]);
    });
    for (const float sum : sums) CHECK(sum == sums[0]);
  }
}

TEST_CASE("blocks that wait for each other hand over their results, in every order") {
  in_every_order([] {
    const int blocks = 5;
    Buffer<int> x(static_cast<std::size_t>(blocks * 64));
    Buffer<unsigned> ready(static_cast<std::size_t>(blocks), 0u);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int>(i % 7) - 2;
    const Buffer<int> before = x;
    sample_scan(x.data(), blocks, ready.data(), nullptr);
    synchronize();
    int sum = 0, wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) wrong += x[i] != (sum += before[i]);
    CHECK(wrong == 0);
  });
}
