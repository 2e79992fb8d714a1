// Capturing work and replaying it, in the fake runtime.
#include <algorithm>

#include "tests/simt/fake_state.h"

using namespace frcnn::simt::fake;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const std::lock_guard lock(mutex);
  auto* const on = static_cast<Stream*>(stream);
  if (const cudaError_t error = enter("cudaStreamBeginCapture", on ? on->device : current_device))
    return result(error);
  if (!on) return result(cudaErrorStreamCaptureUnsupported);  // the default stream cannot be captured
  if (mode != cudaStreamCaptureModeThreadLocal)
    violate("a capture that is in the way of other threads, or lets its own do anything");
  if (on->capture || FrcnnSimtStream::capturing) {
    violate("a capture inside a capture");
    return result(cudaErrorInvalidValue);
  }
  on->capture.emplace();
  on->capture->graph.device = on->device;
  on->capture->thread = std::this_thread::get_id();
  FrcnnSimtStream::capturing = on;
  return cudaSuccess;
}

// Ends the capture whether or not it succeeds.
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard lock(mutex);
  auto& on = *static_cast<Stream*>(stream);
  const cudaError_t error = enter("cudaStreamEndCapture", on.device);
  *graph = nullptr;
  if (!on.capture) {
    violate("the end of a capture that was not begun");
    return result(cudaErrorInvalidValue);
  }
  if (on.capture->thread != std::this_thread::get_id()) {
    violate("a capture ended by another thread");
    return result(cudaErrorStreamCaptureWrongThread);
  }
  const Capture capture = std::move(*on.capture);
  on.capture.reset();
  FrcnnSimtStream::capturing = nullptr;
  if (error) return result(error);
  if (capture.invalid) return result(cudaErrorStreamCaptureInvalidated);
  *graph = *machine->graphs.insert(new FrcnnFakeGraph(capture.graph)).first;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter_outside_capture("cudaGraphInstantiate", current_device))
    return result(error);
  if (!machine->graphs.count(graph)) {
    violate("a graph that is none was instantiated");
    return result(cudaErrorInvalidValue);
  }
  *executable = *machine->executables.insert(new FrcnnFakeGraphExec{*graph}).first;
  return cudaSuccess;
}

namespace {

// Under the lock: of a call that gives a graph to a stream.
cudaError_t enter_with_graph(const char* call, cudaGraphExec_t executable, Stream& stream) {
  if (const cudaError_t error = enter_outside_capture(call, stream.device)) return error;
  if (!machine->executables.count(executable) || executable->graph.device != stream.device ||
      current_device != stream.device) {
    violate(std::string(call) + " of a graph that is none, or of another device");
    return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  return result(enter_with_graph("cudaGraphUpload", executable, *static_cast<Stream*>(stream)));
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  auto& on = *static_cast<Stream*>(stream);
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex);
    if (const cudaError_t error = enter_with_graph("cudaGraphLaunch", executable, on)) return result(error);
    callback = machine->on_launch;
    const auto& nodes = executable->graph.nodes;
    machine->replayed_kernels += static_cast<int>(
        std::count_if(nodes.begin(), nodes.end(), [](const auto& node) { return node.start != nullptr; }));
  }
  for (const FrcnnFakeGraph::Node& node : executable->graph.nodes) {
    if (node.start) {  // a kernel, which other threads need not wait for
      if (callback) callback();
      node.start();
      const std::lock_guard lock(mutex);
      take_time(node.kernel);
      continue;
    }
    const std::lock_guard lock(mutex);
    if (const cudaError_t error = node.from ? copy(on, node) : fill(on, node)) return result(error);
  }
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const std::lock_guard lock(mutex);
  const cudaError_t error = enter_outside_capture("cudaGraphDestroy", current_device);
  if (machine->graphs.erase(graph) == 0) {
    violate("a graph that is none was destroyed");
    return result(cudaErrorInvalidValue);
  }
  delete graph;
  return result(error);  // what fails here is gone all the same
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const std::lock_guard lock(mutex);
  const cudaError_t error = enter_outside_capture("cudaGraphExecDestroy", current_device);
  if (machine->executables.erase(executable) == 0) {
    violate("an executable graph that is none was destroyed");
    return result(cudaErrorInvalidValue);
  }
  delete executable;
  return result(error);
}
