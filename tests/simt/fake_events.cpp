// Events of the fake runtime: a clock that goes on with every kernel that runs, by what a test says it takes.
#include "tests/simt/fake_state.h"

using namespace frcnn::simt::fake;

namespace frcnn::simt::fake {

void take_time(const void* kernel) {
  machine->clock_ms += machine->kernel_ms ? machine->kernel_ms(kernel) : 1.0;
}

}  // namespace frcnn::simt::fake

namespace {

cudaError_t known(cudaEvent_t event, const char* call) {
  if (machine->events.count(event)) return cudaSuccess;
  violate(std::string(call) + " of an event that is none");
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter_outside_capture("cudaEventCreate", current_device)) return result(error);
  *event = *machine->events.insert(new FrcnnFakeEvent{current_device}).first;
  return cudaSuccess;
}

// A captured one would be a node of the graph, which nobody here wants.
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  const auto& on = *static_cast<Stream*>(stream);
  if (const cudaError_t error = enter_outside_capture("cudaEventRecord", on.device)) return result(error);
  if (const cudaError_t error = known(event, "cudaEventRecord")) return result(error);
  event->ms = machine->clock_ms;
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter("cudaEventElapsedTime", current_device)) return result(error);
  for (const cudaEvent_t event : {start, end}) {
    if (const cudaError_t error = known(event, "cudaEventElapsedTime")) return result(error);
    if (event->ms >= 0) continue;
    violate("the time of an event that was not recorded");
    return result(cudaErrorInvalidValue);
  }
  *ms = static_cast<float>(end->ms - start->ms);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const std::lock_guard lock(mutex);
  const cudaError_t error = enter_outside_capture("cudaEventDestroy", current_device);
  if (const cudaError_t unknown = known(event, "cudaEventDestroy")) return result(unknown);
  machine->events.erase(event);
  delete event;
  return result(error);  // what fails here is gone all the same
}

void frcnn::simt::FakeMachine::kernel_ms(std::function<double(const void* kernel)> time) {
  const std::lock_guard lock(mutex);
  machine->kernel_ms = std::move(time);
}
