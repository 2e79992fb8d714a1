#include "tests/simt/conformance.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "frcnn/error.h"
#include "tests/simt/arithmetic.h"
#include "tests/simt/buffer.h"
#include "tests/simt/instructions.h"
#include "tests/simt/samples.h"

namespace frcnn::simt_test {
namespace {

using Type = Sample::Type;

template <class T>
Type type_of() {
  if constexpr (std::is_same_v<T, float>) return Type::f32;
  if constexpr (std::is_same_v<T, double>) return Type::f64;
  if constexpr (sizeof(T) == 8) return Type::u64;
  if constexpr (sizeof(T) == 4) return Type::u32;
  return sizeof(T) == 2 ? Type::u16 : Type::u8;
}

template <class T>
Sample sample_of(std::string name, const T& buffer) {
  synchronize();
  Sample sample{std::move(name), type_of<typename T::value_type>(), {}, 0, {}};
  sample.result.resize(buffer.size() * sizeof(buffer[0]));
  std::memcpy(sample.result.data(), buffer.data(), sample.result.size());
  return sample;
}

// --- functions of one thread

// Where number formats change: signs, zeros, denormals, the largest, halves, infinities, NaN.
template <class T>
std::vector<T> corners() {
  if constexpr (std::is_floating_point_v<T>) {
    using Limits = std::numeric_limits<T>;
    std::vector<T> list;
    for (const T v :
         {T(0), Limits::denorm_min(), Limits::min() - Limits::denorm_min(), Limits::min(), T(0.5),
          T(1) - Limits::epsilon(), T(1), T(1.5), T(2.5), T(65504), T(65519.996), T(65520), T(2147483520),
          T(2147483648.0), T(4294967296.0), Limits::max(), Limits::infinity(), Limits::quiet_NaN()}) {
      list.push_back(v);
      list.push_back(-v);
    }
    return list;
  } else if constexpr (sizeof(T) == 2) {
    return {0, 0x8000, 1, 0x3ff, 0x400, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x7f80, 0x3c00, 0x3f80};
  } else {
    return {0, 1, 2, 31, 32, 33, 0x7fffffffu, 0x80000000u, 0xffffffffu, 0x00010000u, 0x01000001u};
  }
}

template <class T>
T drawn(std::mt19937_64& random, Function::Domain domain) {
  if constexpr (std::is_floating_point_v<T>) {
    const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
    if (domain == Function::Domain::moderate) return static_cast<T>(20 * unit - 10);
    if (domain == Function::Domain::large) return static_cast<T>(2 * std::pow(5e5, unit));
    using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
    // Half of them any pattern at all, half of everyday size.
    const auto bits = static_cast<Bits>(random());
    return random() & 1u ? std::bit_cast<T>(bits)
                         : static_cast<T>(std::ldexp(unit - 0.5, static_cast<int>(bits % 40u) - 8));
  } else {
    return static_cast<T>(random());
  }
}

template <class In, class Out>
Sample run_function(const Function& f) {
  std::mt19937_64 random(1);
  Buffer<In> a, b, c;
  if (f.domain == Function::Domain::all) {
    const std::vector<In> special = corners<In>();
    for (std::size_t i = 0; i < special.size(); ++i)
      for (std::size_t j = 0; j < special.size(); ++j) {
        a.push_back(special[i]);
        b.push_back(special[j]);
        c.push_back(special[(i + 7 * j) % special.size()]);
      }
  }
  for (int i = 0; i < 4000; ++i)
    for (Buffer<In>* to : {&a, &b, &c}) to->push_back(drawn<In>(random, f.domain));
  Buffer<Out> out(a.size());
  f.run(static_cast<int>(a.size()), a.data(), b.data(), c.data(), out.data());
  Sample sample = sample_of(f.name, out);
  sample.ulps = f.ulps;
  return sample;
}

Sample run_function(const Function& f) {
  using FunctionType = Function::Type;
  const auto with_in = [&]<class In>(In) {
    switch (f.out) {
      case FunctionType::f32:
        return run_function<In, float>(f);
      case FunctionType::f64:
        return run_function<In, double>(f);
      case FunctionType::u32:
        return run_function<In, unsigned>(f);
      case FunctionType::u16:
        break;
    }
    return run_function<In, unsigned short>(f);
  };
  switch (f.in) {
    case FunctionType::f32:
      return with_in(0.0f);
    case FunctionType::f64:
      return with_in(0.0);
    case FunctionType::u32:
      return with_in(0u);
    case FunctionType::u16:
      break;
  }
  return with_in(static_cast<unsigned short>(0));
}

// --- tensor cores

// `value` in the low 16 bits as f16 or bf16, or as tf32, cut off; and what is left of it.
std::uint32_t cut(Mma kind, float& value) {
  std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  bits &= kind == Mma::bf16 ? 0xffff0000u : 0xffffe000u;
  value = std::bit_cast<float>(bits);
  if (kind == Mma::tf32) return bits;
  if (kind == Mma::bf16) return bits >> 16;
  return (bits >> 16 & 0x8000u) | (((bits & 0x7fffffffu) - 0x38000000u) >> 13);
}

// Real numbers. A tensor core lines up its products with the largest one and cuts off what falls below 2^-23
// of it, once for each of them and the accumulator, and once more where it stores: that, of the sum of all
// magnitudes, is what two correct sums may differ by.
Sample run_mma_of_reals(Mma kind, const char* name) {
  const int cases = 64, depth = kind == Mma::tf32 ? 8 : 16, pair = kind == Mma::tf32 ? 1 : 2;
  std::mt19937 random(5);
  Buffer<std::uint32_t> a(cases * 128u), b(cases * 64u);
  Buffer<float> c(cases * 128u), d(cases * 128u);
  std::vector<float> allowed(d.size());
  // All of one size in every second case, otherwise spread over twelve powers of two.
  const auto draw = [&](int which) {
    const float unit = (static_cast<float>(random() >> 8) * 0x1p-24f + 1.0f) * (random() & 1u ? 1.0f : -1.0f);
    return which % 2 ? unit : std::ldexp(unit, static_cast<int>(random() % 12) - 6);
  };
  for (int which = 0; which < cases; ++which) {
    std::vector<double> row(16), column(8);  // sums of magnitudes bound the products' sum by rows and columns
    std::vector<std::vector<double>> ma(16, std::vector<double>(16)), mb(16, std::vector<double>(8));
    for (int lane = 0; lane < 32; ++lane)
      for (int r = 0; r < 4; ++r)
        for (int half = 0; half < pair; ++half) {
          float v = draw(which);
          a[static_cast<std::size_t>((which * 32 + lane) * 4 + r)] |= cut(kind, v) << (16 * half);
          const int k = kind == Mma::tf32 ? lane % 4 + r / 2 * 4 : lane % 4 * 2 + half + r / 2 * 8;
          ma[static_cast<std::size_t>(lane / 4 + r % 2 * 8)][static_cast<std::size_t>(k)] = std::abs(v);
          if (r > 1) continue;
          v = draw(which);
          b[static_cast<std::size_t>((which * 32 + lane) * 2 + r)] |= cut(kind, v) << (16 * half);
          const int kb = kind == Mma::tf32 ? lane % 4 + r * 4 : lane % 4 * 2 + half + r * 8;
          mb[static_cast<std::size_t>(kb)][static_cast<std::size_t>(lane / 4)] = std::abs(v);
        }
    for (int lane = 0; lane < 32; ++lane)
      for (int r = 0; r < 4; ++r) {
        const auto at = static_cast<std::size_t>((which * 32 + lane) * 4 + r);
        c[at] = draw(which);
        double size = std::abs(c[at]);
        const auto m = static_cast<std::size_t>(lane / 4 + r / 2 * 8),
                   n = static_cast<std::size_t>(lane % 4 * 2 + r % 2);
        for (int k = 0; k < depth; ++k)
          size += ma[m][static_cast<std::size_t>(k)] * mb[static_cast<std::size_t>(k)][n];
        allowed[at] = static_cast<float>(size * (depth + 2) * 0x1p-23);
      }
  }
  run_mma(kind, cases, a.data(), b.data(), c.data(), d.data());
  Sample sample = sample_of(name, d);
  sample.allowed = std::move(allowed);
  return sample;
}

// --- the others, on random operands

template <class T>
Buffer<T> random_buffer(std::size_t count, unsigned seed) {
  std::mt19937_64 random(seed);
  Buffer<T> buffer(count);
  for (T& v : buffer) v = static_cast<T>(random());
  return buffer;
}

void add_memory_samples(std::vector<Sample>& samples) {
  for (const int count : {1, 2, 4})
    for (const bool transposed : {false, true}) {
      const Buffer<std::uint16_t> source =
          random_buffer<std::uint16_t>(static_cast<std::size_t>(count) * 64, 7);
      Buffer<std::uint32_t> result(32 * static_cast<std::size_t>(count));
      run_ldmatrix(count, transposed, source.data(), result.data());
      samples.push_back(
          sample_of("ldmatrix_x" + std::to_string(count) + (transposed ? "_trans" : ""), result));
    }
  for (const int bytes : {4, 8, 16}) {
    const int threads = 128;
    const Buffer<std::uint8_t> source =
        random_buffer<std::uint8_t>(static_cast<std::size_t>(threads * bytes), 8);
    Buffer<int> source_bytes(threads);
    for (int i = 0; i < threads; ++i) source_bytes[static_cast<std::size_t>(i)] = i * 7 % (bytes + 1);
    Buffer<std::uint8_t> result(source.size());
    run_cp_async(bytes, threads, source.data(), source_bytes.data(), result.data());
    samples.push_back(sample_of("cp_async_" + std::to_string(bytes), result));
  }
  Buffer<float> value;
  for (const std::uint32_t bits : random_buffer<std::uint32_t>(4000, 9)) {
    const float v = std::bit_cast<float>(bits);
    if (!std::isnan(v)) value.push_back(v);
  }
  Buffer<std::uint32_t> rounded(value.size());
  run_cvt_rna_tf32(static_cast<int>(value.size()), value.data(), rounded.data());
  synchronize();
  for (std::uint32_t& bits : rounded) bits &= 0xffffe000u;  // the others are not looked at
  samples.push_back(sample_of("cvt_rna_tf32", rounded));
}

void add_warp_samples(std::vector<Sample>& samples) {
  std::mt19937 random(10);
  Buffer<float> value(32), result(32);
  for (float& v : value) v = static_cast<float>(random() % 1000);
  const char* const names[] = {"shfl", "shfl_up", "shfl_down", "shfl_xor"};
  for (const Shuffle kind : {Shuffle::from, Shuffle::up, Shuffle::down, Shuffle::exchange}) {
    Buffer<float> all;
    for (const int width : {1, 2, 4, 8, 16, 32})
      for (int round = 0; round < 12; ++round) {
        Buffer<int> argument(32);
        const int by = static_cast<int>(random() % 32);
        // A lane outside of the group wraps round; all lanes shift by the same.
        for (int& a : argument) a = kind == Shuffle::from ? static_cast<int>(random() % 64) : by;
        run_shuffle(kind, 0xffffffffu, width, argument.data(), value.data(), result.data());
        synchronize();
        all.insert(all.end(), result.begin(), result.end());
      }
    samples.push_back(sample_of(names[static_cast<int>(kind)], all));
  }
  Buffer<std::uint32_t> votes, word(32), answer(32 * 7);
  for (int round = 0; round < 40; ++round) {
    const unsigned mask = round % 4 == 0 ? 0xffffffffu : static_cast<unsigned>(random()) | 1u << (round % 32);
    for (std::uint32_t& v : word)
      v = static_cast<std::uint32_t>(random()) % (1u + static_cast<unsigned>(round) % 5u);
    run_votes(mask, word.data(), answer.data());
    synchronize();
    // Which lanes are converged is the hardware's choice.
    for (std::size_t lane = 0; lane < 32; ++lane) answer[lane * 7 + 3] = 0;
    votes.insert(votes.end(), answer.begin(), answer.end());
  }
  samples.push_back(sample_of("votes", votes));
}

void add_grid_samples(std::vector<Sample>& samples) {
  const int threads = 1000;
  Buffer<int> value(threads);
  std::mt19937 random(11);
  for (int& v : value) v = static_cast<int>(random() % 2001) - 1000;  // float sums stay exact
  Buffer<AtomicCells> cell(1);
  cell[0] = {1, 5, -5, 3, 0xffffffffu, 0, 0x12345678u, 0, 0, 7, 11, 0.25f};
  run_atomics(threads, value.data(), cell.data());
  synchronize();
  const AtomicCells& end = cell[0];  // without the exchanged one: whoever came last
  Buffer<std::uint64_t> cells{static_cast<std::uint64_t>(end.add_int),
                              static_cast<std::uint64_t>(end.min_int),
                              static_cast<std::uint64_t>(end.max_int),
                              end.add_unsigned,
                              end.and_unsigned,
                              end.or_unsigned,
                              end.xor_unsigned,
                              end.swapped_count,
                              end.add_ull,
                              end.max_ull,
                              std::bit_cast<std::uint32_t>(end.add_float)};
  samples.push_back(sample_of("atomics", cells));

  const int blocks = 12, per_block = 96;
  Buffer<int> predicate(static_cast<std::size_t>(blocks) * per_block), result(predicate.size() * 6);
  for (std::size_t i = 0; i < predicate.size(); ++i)
    predicate[i] = static_cast<int>(i / per_block % 3 == 0 ? 0 : i / per_block % 3 == 1 ? 1 : random() % 2);
  run_block_votes(blocks, per_block, predicate.data(), result.data());
  samples.push_back(sample_of("block_votes", result));

  Buffer<half> a(65 * 40), b(50 * 40);
  for (half& v : a) v = half(static_cast<float>(static_cast<int>(random() % 17) - 8));
  for (half& v : b) v = half(static_cast<float>(static_cast<int>(random() % 17) - 8));
  Buffer<float> product(65 * 50);
  sample_gemm(a.data(), b.data(), product.data(), 65, 50, 40, nullptr);
  samples.push_back(sample_of("gemm_of_integers", product));

  Buffer<float> x(10000), partial(7), sum(1);
  for (float& v : x) v = static_cast<float>(random() >> 8) * 0x1p-24f - 0.5f;
  Buffer<unsigned> counter(1, 0u);
  sample_sum(x.data(), static_cast<int>(x.size()), 7, partial.data(), counter.data(), sum.data(), nullptr);
  samples.push_back(sample_of("sum_in_fixed_order", sum));

  Buffer<int> scanned(9 * 64);
  for (int& v : scanned) v = static_cast<int>(random() % 100);
  Buffer<unsigned> ready(9, 0u);
  sample_scan(scanned.data(), 9, ready.data(), nullptr);
  samples.push_back(sample_of("scan_across_blocks", scanned));
}

// --- comparing

std::size_t size_of(Type type) {
  switch (type) {
    case Type::f64:
    case Type::u64:
      return 8;
    case Type::u16:
      return 2;
    case Type::u8:
      return 1;
    default:
      return 4;
  }
}

// Numbers in order: neighbours differ by one, both zeros are one number.
template <class T, class Bits>
double ulps_between(T a, T b) {
  const auto place = [](T v) {
    const Bits bits = std::bit_cast<Bits>(v), sign = Bits{1} << (8 * sizeof(Bits) - 1);
    const auto magnitude = static_cast<double>(bits & ~sign);
    return bits & sign ? -magnitude : magnitude;
  };
  return std::abs(place(a) - place(b));
}

template <class T>
T element(const Sample& sample, std::size_t i) {
  T value;
  std::memcpy(&value, sample.result.data() + i * sizeof value, sizeof value);
  return value;
}

// Distance over what is allowed for it is in `distance`; false if it is too far.
template <class T, class Bits>
bool alike(const Sample& got, const Sample& expected, std::size_t i, double& distance) {
  const T g = element<T>(got, i), e = element<T>(expected, i);
  if (std::isnan(g) && std::isnan(e)) return true;
  if (std::memcmp(&g, &e, sizeof g) == 0) return true;
  if (!expected.allowed.empty()) {
    distance = std::abs(static_cast<double>(g) - static_cast<double>(e)) / expected.allowed[i];
    return distance <= 1;
  }
  distance = ulps_between<T, Bits>(g, e);
  return expected.ulps > 0 && distance <= expected.ulps;
}

std::string text_of(const Sample& sample, std::size_t i) {
  if (sample.type == Type::f32)
    return std::to_string(element<float>(sample, i)) + " (bits " +
           std::to_string(element<std::uint32_t>(sample, i)) + ")";
  if (sample.type == Type::f64) return std::to_string(element<double>(sample, i));
  std::uint64_t value = 0;
  std::memcpy(&value, sample.result.data() + i * size_of(sample.type), size_of(sample.type));
  return std::to_string(value);
}

}  // namespace

std::vector<Sample> take_samples() {
  std::vector<Sample> samples;
  for (const Function& f : functions()) samples.push_back(run_function(f));
  samples.push_back(run_mma_of_reals(Mma::f16, "mma_f16"));
  samples.push_back(run_mma_of_reals(Mma::bf16, "mma_bf16"));
  samples.push_back(run_mma_of_reals(Mma::tf32, "mma_tf32"));
  add_memory_samples(samples);
  add_warp_samples(samples);
  add_grid_samples(samples);
  return samples;
}

void write_samples(const std::string& path, std::span<const Sample> samples) {
  std::vector<StoredTensor> tensors;
  nlohmann::json about;
  for (const Sample& sample : samples) {
    about[sample.name] = {{"type", static_cast<int>(sample.type)}, {"ulps", sample.ulps}};
    const auto bytes = static_cast<std::int64_t>(sample.result.size());
    tensors.push_back({sample.name, DType::u8, {bytes}, sample.result.data(), sample.result.size()});
    if (sample.allowed.empty()) continue;
    const auto count = static_cast<std::int64_t>(sample.allowed.size());
    tensors.push_back(
        {sample.name + "@allowed", DType::f32, {count}, sample.allowed.data(), sample.allowed.size() * 4});
  }
  write_safetensors(path, tensors, {{"samples", about.dump()}});
}

std::vector<Sample> read_samples(const std::string& path) {
  const auto file = SafetensorsFile::open(path);
  const auto text = file->metadata().find("samples");
  const nlohmann::json about =
      text == file->metadata().end() ? nlohmann::json() : nlohmann::json::parse(text->second, nullptr, false);
  if (!about.is_object()) throw Error(ErrorCode::bad_file, path + ": holds no samples of the emulator");
  std::vector<Sample> samples;
  for (const auto& [name, entry] : about.items()) {
    const StoredTensor *result = file->find(name), *allowed = file->find(name + "@allowed");
    if (!result) throw Error(ErrorCode::bad_file, path + ": no tensor " + name);
    Sample sample{name, static_cast<Type>(entry.at("type").get<int>()), {}, entry.at("ulps").get<int>(), {}};
    sample.result.resize(result->bytes);
    std::memcpy(sample.result.data(), result->data, result->bytes);
    if (allowed) {
      sample.allowed.resize(allowed->bytes / sizeof(float));
      std::memcpy(sample.allowed.data(), allowed->data, allowed->bytes);
    }
    samples.push_back(std::move(sample));
  }
  return samples;
}

Comparison compare(const Sample& got, const Sample& expected) {
  Comparison result;
  if (got.type != expected.type || got.result.size() != expected.result.size()) {
    result.differing = 1;
    result.first = "another number of elements: the file is of another version";
    return result;
  }
  const std::size_t size = size_of(expected.type);
  result.elements = expected.result.size() / size;
  for (std::size_t i = 0; i < result.elements; ++i) {
    double distance = 0;
    const bool same =
        expected.type == Type::f32 ? alike<float, std::uint32_t>(got, expected, i, distance)
        : expected.type == Type::f64
            ? alike<double, std::uint64_t>(got, expected, i, distance)
            : std::memcmp(got.result.data() + i * size, expected.result.data() + i * size, size) == 0;
    result.worst = std::max(result.worst, distance);
    if (same) continue;
    if (result.differing++ == 0)
      result.first = "element " + std::to_string(i) + ": " + text_of(got, i) + ", the emulator has " +
                     text_of(expected, i);
  }
  return result;
}

}  // namespace frcnn::simt_test
