// A device whose memory is written once before anybody gets it. The engine downloads its outputs as one block
// with gaps between them that nobody writes, which compute-sanitizer's initcheck would report.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "runtime/device.h"

namespace frcnn::simt_test {

class FilledDevice final : public Device {
 public:
  explicit FilledDevice(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  std::shared_ptr<void> allocate(std::size_t bytes) override {
    std::shared_ptr<void> memory = device_->allocate(bytes);
    device_->fill(memory.get(), 0xFF, bytes);  // NaN in every float format
    return memory;
  }

  std::string name() const override { return device_->name(); }
  bool is_host() const override { return device_->is_host(); }
  Precision precision() const override { return device_->precision(); }
  FusionSupport fusions() const override { return device_->fusions(); }
  Prepared prepare(const Op& op, const KernelSpec& spec) override { return device_->prepare(op, spec); }
  void upload(void* to, const void* from, std::size_t bytes) override { device_->upload(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override {
    device_->download(to, from, bytes);
  }
  std::shared_ptr<void> allocate_host(std::size_t bytes) override { return device_->allocate_host(bytes); }
  void queue_upload(void* to, const void* from, std::size_t bytes) override {
    device_->queue_upload(to, from, bytes);
  }
  void queue_download(void* to, const void* from, std::size_t bytes) override {
    device_->queue_download(to, from, bytes);
  }
  void fill(void* memory, int byte, std::size_t bytes) override { device_->fill(memory, byte, bytes); }
  void synchronize() override { device_->synchronize(); }
  void* stream() override { return device_->stream(); }
  bool holds(const void* memory, std::size_t bytes) const override { return device_->holds(memory, bytes); }
  bool stages_can_be_timed() const override { return device_->stages_can_be_timed(); }
  bool records() const override { return device_->records(); }
  std::unique_ptr<Recording> record(const std::function<void()>& work) override {
    return device_->record(work);
  }
  void replay(const Recording& recording) override { device_->replay(recording); }
  DeviceCounts counts() const override { return device_->counts(); }

 private:
  std::shared_ptr<Device> device_;
};

}  // namespace frcnn::simt_test
