// The seam between the engine and the kernels: one declaration per op and device. A kernel knows attribute
// structs, shapes and pointers; it knows nothing of graphs, models or plans.
//
// prepare() decides everything that can be decided before running (algorithm, workspace, weight layout), so
// that run() only computes: no allocation, no branching on shapes, no synchronisation.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "graph/ops.h"
#include "graph/precision.h"
#include "graph/tensor.h"

namespace frcnn {

// What one run of a kernel gets. `in` and `out` are packed NHWC on the kernel's device; a weight whose
// packing the kernel asked for arrives packed (its view keeps the published shape, its data is the packed
// bytes).
struct KernelArgs {
  std::span<const TensorView> in, out;
  void* workspace = nullptr;  // as many bytes as asked for, 64-byte aligned, content undefined
  void* stream = nullptr;     // the device's queue; unused on the CPU
};

// A weight layout that a kernel wants for input number `input`. Two packings with equal `layout` strings hold
// equal bytes for equal weights, so the model shares one copy of them between sessions and image sizes.
struct WeightPacking {
  int input = 0;
  std::string layout;
  std::size_t bytes = 0;
  std::function<void(const TensorView& published_f32, void* packed)> pack;  // runs on the host
  // The same bytes from a weight that lives on the device, queued on `stream`: for weights in training. Empty
  // where the device is the host and `pack` serves both.
  std::function<void(const TensorView& published_f32, void* packed, void* stream)> pack_on_device = nullptr;
};

struct Prepared {
  std::string implementation;  // what will run, for tables: "brgconv:avx512_core", "plain"
  std::size_t workspace_bytes = 0;
  std::vector<WeightPacking> packings;
  std::function<void(const KernelArgs&)> run;
};

struct KernelSpec {
  std::span<const TensorSpec> in, out;
};

namespace cpu {

struct Settings {
  int threads = 1;  // used by every kernel, at least 1
};

// Whether oneDNN multiplies bf16 in hardware on this processor (AVX-512 BF16 or AMX).
bool multiplies_bf16();

// Each lives in kernels/cpu/<op>.cpp. Maps and fully connected rows are f32 or bf16: conv2d and linear
// multiply in their destination's type (conv2d and its gradients in their `operands` where that says bf16),
// sums are fp32; the others compute in fp32 from what they read and round once. Scores, deltas and boxes are
// f32. Safe to call from several threads; a Prepared runs in one thread at a time (it binds its primitives to
// the arguments). Except the products (oneDNN), results do not depend on the number of threads.
Prepared prepare(const Preprocess&, const KernelSpec&, const Settings&);
Prepared prepare(const Conv2d&, const KernelSpec&, const Settings&);
Prepared prepare(const Relu&, const KernelSpec&, const Settings&);
Prepared prepare(const Scale&, const KernelSpec&, const Settings&);
Prepared prepare(const MaxPool&, const KernelSpec&, const Settings&);
Prepared prepare(const Lrn&, const KernelSpec&, const Settings&);
Prepared prepare(const Linear&, const KernelSpec&, const Settings&);
Prepared prepare(const Softmax&, const KernelSpec&, const Settings&);
Prepared prepare(const DecodeProposals&, const KernelSpec&, const Settings&);
Prepared prepare(const TopK&, const KernelSpec&, const Settings&);
Prepared prepare(const Nms&, const KernelSpec&, const Settings&);
Prepared prepare(const RoiPool&, const KernelSpec&, const Settings&);
Prepared prepare(const RoiAlign&, const KernelSpec&, const Settings&);
Prepared prepare(const DecodeBoxes&, const KernelSpec&, const Settings&);
Prepared prepare(const SelectDetections&, const KernelSpec&, const Settings&);

// Training. Maps, gradients and weights are f32; the gradients of convolutions multiply in their `operands`.
Prepared prepare(const InputUnits&, const KernelSpec&, const Settings&);
Prepared prepare(const Add&, const KernelSpec&, const Settings&);
Prepared prepare(const ReluBackward&, const KernelSpec&, const Settings&);
Prepared prepare(const Conv2dBackwardData&, const KernelSpec&, const Settings&);
Prepared prepare(const Conv2dBackwardWeight&, const KernelSpec&, const Settings&);
Prepared prepare(const LinearBackwardData&, const KernelSpec&, const Settings&);
Prepared prepare(const LinearBackwardWeight&, const KernelSpec&, const Settings&);
Prepared prepare(const MaxPoolBackward&, const KernelSpec&, const Settings&);
Prepared prepare(const LrnBackward&, const KernelSpec&, const Settings&);
Prepared prepare(const RoiPoolBackward&, const KernelSpec&, const Settings&);
Prepared prepare(const RoiAlignBackward&, const KernelSpec&, const Settings&);
Prepared prepare(const Dropout&, const KernelSpec&, const Settings&);
Prepared prepare(const AnchorTargets&, const KernelSpec&, const Settings&);
Prepared prepare(const RoiTargets&, const KernelSpec&, const Settings&);
Prepared prepare(const SoftmaxLoss&, const KernelSpec&, const Settings&);
Prepared prepare(const SmoothL1Loss&, const KernelSpec&, const Settings&);
Prepared prepare(const ClipGradients&, const KernelSpec&, const Settings&);
Prepared prepare(const Sgd&, const KernelSpec&, const Settings&);

}  // namespace cpu

namespace cuda {

// What a kernel must know of the device and the program to choose its configuration.
struct Settings {
  Precision precision = Precision::fp32;
  int multiprocessors = 1;
  std::size_t shared_per_block = 163 << 10;           // the most shared memory that a block may ask for
  std::size_t shared_per_multiprocessor = 164 << 10;  // of all blocks that are on it at a time
};

// Each lives in kernels/cuda/<op>.cu: kernels above, launchers below. Maps and fully connected rows are f32,
// f16 or bf16 (source and destination may differ where a score is made); sums are fp32; scores, deltas, boxes
// and counts are f32 and i32 and get the same bits as on the CPU from equal inputs. A run only launches on
// args.stream: it neither waits nor reads anything back. Two runs give the same bits.
Prepared prepare(const Preprocess&, const KernelSpec&, const Settings&);
Prepared prepare(const Conv2d&, const KernelSpec&, const Settings&);
Prepared prepare(const Relu&, const KernelSpec&, const Settings&);
Prepared prepare(const Scale&, const KernelSpec&, const Settings&);
Prepared prepare(const MaxPool&, const KernelSpec&, const Settings&);
Prepared prepare(const Lrn&, const KernelSpec&, const Settings&);
Prepared prepare(const Linear&, const KernelSpec&, const Settings&);
Prepared prepare(const Softmax&, const KernelSpec&, const Settings&);
Prepared prepare(const DecodeProposals&, const KernelSpec&, const Settings&);
Prepared prepare(const TopK&, const KernelSpec&, const Settings&);
Prepared prepare(const Nms&, const KernelSpec&, const Settings&);
Prepared prepare(const RoiPool&, const KernelSpec&, const Settings&);
Prepared prepare(const RoiAlign&, const KernelSpec&, const Settings&);
Prepared prepare(const DecodeBoxes&, const KernelSpec&, const Settings&);
Prepared prepare(const SelectDetections&, const KernelSpec&, const Settings&);

// Training. Maps, gradients and weights are f32; Settings::precision says how the products of gradients are
// made: fp32, tf32x3 or tf32, and in 16-bit programs tf32, since gradients span more than fp16 holds and f32
// operands gain nothing from fewer bits. The matrix products aside, results have the CPU's bits (but for what
// the libraries' log and pow differ in).
Prepared prepare(const InputUnits&, const KernelSpec&, const Settings&);
Prepared prepare(const Add&, const KernelSpec&, const Settings&);
Prepared prepare(const ReluBackward&, const KernelSpec&, const Settings&);
Prepared prepare(const Conv2dBackwardData&, const KernelSpec&, const Settings&);
Prepared prepare(const Conv2dBackwardWeight&, const KernelSpec&, const Settings&);
Prepared prepare(const LinearBackwardData&, const KernelSpec&, const Settings&);
Prepared prepare(const LinearBackwardWeight&, const KernelSpec&, const Settings&);
Prepared prepare(const MaxPoolBackward&, const KernelSpec&, const Settings&);
Prepared prepare(const LrnBackward&, const KernelSpec&, const Settings&);
Prepared prepare(const RoiPoolBackward&, const KernelSpec&, const Settings&);
Prepared prepare(const RoiAlignBackward&, const KernelSpec&, const Settings&);
Prepared prepare(const Dropout&, const KernelSpec&, const Settings&);
Prepared prepare(const AnchorTargets&, const KernelSpec&, const Settings&);
Prepared prepare(const RoiTargets&, const KernelSpec&, const Settings&);
Prepared prepare(const SoftmaxLoss&, const KernelSpec&, const Settings&);
Prepared prepare(const SmoothL1Loss&, const KernelSpec&, const Settings&);
Prepared prepare(const ClipGradients&, const KernelSpec&, const Settings&);
Prepared prepare(const Sgd&, const KernelSpec&, const Settings&);

}  // namespace cuda
}  // namespace frcnn
