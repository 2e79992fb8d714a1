// A device that computes each precision in the plainest way: the CPU's fp32 layers, with operands rounded
// before a product and maps rounded when they are stored. What it loses against fp32 is what the precision
// itself costs, so another implementation is measured by it.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "graph/dtype.h"
#include "runtime/device.h"

namespace frcnn::simt_test {

class PlainDevice final : public Device {
 public:
  explicit PlainDevice(Precision precision) : precision_(precision) {}

  std::string name() const override { return "plain:" + std::string(name_of(precision_)); }
  bool is_host() const override { return true; }
  Precision precision() const override { return precision_; }
  FusionSupport fusions() const override { return {}; }

  Prepared prepare(const Op& op, const KernelSpec& spec) override {
    const bool product = std::holds_alternative<Conv2d>(op) || std::holds_alternative<Linear>(op);
    const std::vector<TensorSpec> in = widened(spec.in), out = widened(spec.out);
    Prepared prepared = cpu_->prepare(op, {in, out});
    prepared.implementation = "plain";
    const Rounding rounding = !product                          ? Rounding::none
                              : spec.in[0].dtype == DType::f16  ? Rounding::f16
                              : spec.in[0].dtype == DType::bf16 ? Rounding::bf16
                              : precision_ == Precision::tf32   ? Rounding::tf32
                                                                : Rounding::none;
    if (product) round_weight(prepared, in[1], rounding);
    prepared.run = [run = prepared.run, rounding](const KernelArgs& args) {
      std::vector<std::vector<float>> memory;
      std::vector<TensorView> in_views, out_views;
      for (const TensorView& view : args.in) {
        in_views.push_back(view);
        const bool first = &view == args.in.data();
        if (!is_narrow(view.dtype) && !(first && rounding == Rounding::tf32)) continue;
        memory.push_back(loaded(view));
        if (first && rounding == Rounding::tf32) round(memory.back(), rounding);
        in_views.back() = {memory.back().data(), view.shape, DType::f32};
      }
      for (const TensorView& view : args.out) {
        out_views.push_back(view);
        if (!is_narrow(view.dtype)) continue;
        memory.emplace_back(static_cast<std::size_t>(view.shape.elements()));
        out_views.back() = {memory.back().data(), view.shape, DType::f32};
      }
      run({in_views, out_views, args.workspace, args.stream});
      for (std::size_t i = 0; i < out_views.size(); ++i)
        if (is_narrow(args.out[i].dtype))
          from_f32(out_views[i].as<const float>(), out_views[i].shape.elements(), args.out[i].dtype,
                   args.out[i].data);
    };
    return prepared;
  }

  std::shared_ptr<void> allocate(std::size_t bytes) override { return cpu_->allocate(bytes); }
  std::shared_ptr<void> allocate_host(std::size_t bytes) override { return cpu_->allocate_host(bytes); }
  void upload(void* d, const void* h, std::size_t n) override { cpu_->upload(d, h, n); }
  void download(void* h, const void* d, std::size_t n) override { cpu_->download(h, d, n); }
  void queue_upload(void* d, const void* h, std::size_t n) override { cpu_->upload(d, h, n); }
  void queue_download(void* h, const void* d, std::size_t n) override { cpu_->download(h, d, n); }
  void fill(void* d, int byte, std::size_t n) override { cpu_->fill(d, byte, n); }
  void synchronize() override {}
  void* stream() override { return nullptr; }
  bool stages_can_be_timed() const override { return true; }

 private:
  enum class Rounding : std::uint8_t { none, tf32, f16, bf16 };

  static bool is_narrow(DType dtype) { return dtype == DType::f16 || dtype == DType::bf16; }
  static std::vector<TensorSpec> widened(std::span<const TensorSpec> specs) {
    std::vector<TensorSpec> wide(specs.begin(), specs.end());
    for (TensorSpec& spec : wide)
      if (is_narrow(spec.dtype)) spec.dtype = DType::f32;
    return wide;
  }
  static std::vector<float> loaded(const TensorView& view) {
    std::vector<float> values(static_cast<std::size_t>(view.shape.elements()));
    if (view.dtype == DType::f32) {
      std::memcpy(values.data(), view.data, view.bytes());
    } else {
      to_f32(view, values.data());
    }
    return values;
  }
  static void round(std::vector<float>& values, Rounding rounding) {
    if (rounding == Rounding::f16 || rounding == Rounding::bf16) {
      const DType dtype = rounding == Rounding::f16 ? DType::f16 : DType::bf16;
      std::vector<std::uint16_t> narrow(values.size());
      const auto count = static_cast<std::int64_t>(values.size());
      from_f32(values.data(), count, dtype, narrow.data());
      to_f32({narrow.data(), Shape{count}, dtype}, values.data());
    }
    if (rounding != Rounding::tf32) return;
    for (float& v : values) {  // to 10 bits of mantissa, ties away from zero
      std::uint32_t bits;
      std::memcpy(&bits, &v, sizeof bits);
      bits = (bits + 0x1000u) & ~0x1FFFu;
      std::memcpy(&v, &bits, sizeof bits);
    }
  }
  static void round_weight(Prepared& prepared, const TensorSpec& spec, Rounding rounding) {
    const auto rounded = [rounding](const TensorView& published) {
      std::vector<float> values = loaded(published);
      round(values, rounding);
      return values;
    };
    for (WeightPacking& packing : prepared.packings) {
      if (packing.input != 1) continue;
      packing.pack = [pack = packing.pack, rounded](const TensorView& published, void* packed) {
        std::vector<float> values = rounded(published);
        pack({values.data(), published.shape, DType::f32}, packed);
      };
      return;
    }
    prepared.packings.push_back(
        {1, "rounded", spec.bytes(), [rounded](const TensorView& published, void* packed) {
           const std::vector<float> values = rounded(published);
           std::memcpy(packed, values.data(), values.size() * sizeof(float));
         }});
  }

  Precision precision_;
  std::shared_ptr<Device> cpu_ = make_cpu_device(1);
};

}  // namespace frcnn::simt_test
