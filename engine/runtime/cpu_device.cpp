#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>

#include "frcnn/error.h"
#include "runtime/device.h"

namespace frcnn {
namespace {

constexpr std::size_t huge_page = 2 << 20;

class CpuDevice final : public Device {
 public:
  CpuDevice(int threads, Precision precision)
      : settings_{threads > 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))},
        precision_(precision) {}

  std::string name() const override { return "cpu"; }
  bool is_host() const override { return true; }
  Precision precision() const override { return precision_; }
  FusionSupport fusions() const override { return {.relu = true, .scale = true}; }

  Prepared prepare(const Op& op, const KernelSpec& spec) override {
    return std::visit([&](const auto& attributes) { return cpu::prepare(attributes, spec, settings_); }, op);
  }

  // Address space without memory behind it: an arena sized for the largest image costs only what a run touches. Large
  // blocks lie on huge pages where the system grants them: touching 750 MB for the first time took 0.3 s without.
  std::shared_ptr<void> allocate(std::size_t bytes) override {
    allocations_.fetch_add(1, std::memory_order_relaxed);
    const std::size_t align = bytes >= 2 * huge_page ? huge_page : 0, size = std::max<std::size_t>(bytes, 1) + align;
    void* const mapping = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) throw Error(ErrorCode::out_of_memory, fmt::format("cpu: cannot reserve {} bytes", bytes));
    void* data = mapping;
    if (align > 0) {
      data = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(mapping) + align - 1) / align * align);
      madvise(data, bytes, MADV_HUGEPAGE);   // a hint: may fail
    }
    return std::shared_ptr<void>(data, [mapping, size](void*) { munmap(mapping, size); });
  }

  // Nothing may be copied from or to nowhere.
  void upload(void* device, const void* host, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }
  std::shared_ptr<void> allocate_host(std::size_t bytes) override { return allocate(bytes); }
  void queue_upload(void* device, const void* host, std::size_t bytes) override { upload(device, host, bytes); }
  void queue_download(void* host, const void* device, std::size_t bytes) override { download(host, device, bytes); }
  void fill(void* device, int byte, std::size_t bytes) override { std::memset(device, byte, bytes); }
  void synchronize() override {}
  void* stream() override { return nullptr; }
  int host_threads() const override { return settings_.threads; }
  bool stages_can_be_timed() const override { return true; }
  DeviceCounts counts() const override { return {allocations_, 0}; }

 private:
  cpu::Settings settings_;
  Precision precision_;
  std::atomic<std::int64_t> allocations_ = 0;
};

}  // namespace

std::shared_ptr<Device> make_cpu_device(int threads, Precision precision) {
  const auto refuse = [&](const char* why) {
    throw Error(ErrorCode::unsupported, fmt::format("precision {}: {}", name_of(precision), why));
  };
  if (precision == Precision::bf16) {
    if (!cpu::multiplies_bf16())
      refuse("this processor multiplies no bf16 (that takes AVX-512 BF16 or AMX); use fp32");
  } else if (precision != Precision::fp32) {
    refuse("the CPU computes in fp32 or bf16");
  }
  return std::make_shared<CpuDevice>(threads, precision);
}

}  // namespace frcnn
