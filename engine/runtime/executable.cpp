#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

#include "frcnn/error.h"
#include "runtime/session.h"

namespace frcnn {
namespace {

constexpr std::size_t guard_bytes = 4096;
constexpr std::size_t fetch_limit = 16 << 20;        // of outputs that every run brings to the host
constexpr int guard_byte = 0xA5, unset_byte = 0xFF;  // 0xFF everywhere is a NaN in every float type

std::size_t round_up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

TensorView state_of(const Value& value, const States* states) {
  if (!states) return {nullptr, value.spec.shape, value.spec.dtype};
  const TensorView view = states->view(value.name);
  if (view.spec() != value.spec)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: the program's state is {} {}, the one given {} {}", value.name,
                            name_of(value.spec.dtype), to_string(value.spec.shape), name_of(view.dtype),
                            to_string(view.shape)));
  return view;
}

// What f() makes; an error of its says which layer it was about.
template <class F>
auto of_layer(const Node& node, const F& f) {
  try {
    return f();
  } catch (const Error& error) {
    throw Error(error.code(), node.layer.empty() ? error.what() : fmt::format("{}: {}", node.layer, error.what()));
  }
}

WeightPacking plain_packing(int input, std::size_t bytes) {
  return {input, "published", bytes,
          [bytes](const TensorView& published, void* packed) { std::memcpy(packed, published.data, bytes); }};
}

}  // namespace

// The debug memory: one allocation per value and workspace, between guard zones; a value is unset again once
// its last reader has run, so that a stale read shows.
struct Executable::Guarded {
  struct Zone {
    std::shared_ptr<void> memory;
    std::size_t bytes = 0;
    void* data() const { return static_cast<std::byte*>(memory.get()) + guard_bytes; }
  };
  explicit Guarded(Device& d) : device(d) {}

  Zone make(std::size_t bytes) const {
    Zone zone{device.allocate(bytes + 2 * guard_bytes), bytes};
    device.fill(zone.memory.get(), guard_byte, bytes + 2 * guard_bytes);
    device.fill(zone.data(), unset_byte, bytes);
    return zone;
  }
  bool intact(const Zone& zone) const {
    std::vector<unsigned char> guard(guard_bytes);
    for (const std::size_t at : {std::size_t{0}, guard_bytes + zone.bytes}) {
      device.download(guard.data(), static_cast<const std::byte*>(zone.memory.get()) + at, guard_bytes);
      if (std::any_of(guard.begin(), guard.end(), [](unsigned char c) { return c != guard_byte; }))
        return false;
    }
    return true;
  }
  void unset(const Zone& zone) const { device.fill(zone.data(), unset_byte, zone.bytes); }

  Device& device;
  std::vector<Zone> values, workspaces;  // by ValueId; by node
  std::vector<int> last_reader;          // by ValueId; -1: read from outside, never unset
};

Executable::Executable(const Graph& graph, std::span<const std::string> keep, const Weights& weights,
                       Device& device, const ExecutableOptions& options)
    : graph_(lower(graph, device.fusions(), keep, storage_of(device.precision()))),
      device_(device),
      arena_(options.arena),
      counts_(options.counts) {
  prepare(weights, options.states);
  plan_ = make_plan(graph_, workspace_bytes_);
  if (options.memory == ProgramMemory::none) return;
  for (const Value& value : graph_.values())
    if (value.role == Role::state && !options.states)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{}: the program has states, none were given", value.name));
  fetches_ =
      !device_.is_host() && options.memory == ProgramMemory::arena && plan_.outputs.bytes <= fetch_limit;
  if (!device_.is_host()) {
    const std::size_t bytes = plan_.inputs.bytes + (fetches_ ? plan_.outputs.bytes : 0);
    Staging own(device_);
    staging_ = (options.staging ? *options.staging : own).block(bytes);
  }
  if (options.memory == ProgramMemory::guarded) {
    guarded_ = std::make_unique<Guarded>(device_);
  } else if (!arena_) {
    arena_ = weights.allocate(device_, plan_.arena_bytes);
  } else if (plan_.arena_bytes > options.arena_bytes) {
    throw Error(ErrorCode::out_of_memory, fmt::format("this size needs {} bytes, the session's arena has {}",
                                                      plan_.arena_bytes, options.arena_bytes));
  }
  bind();
  records_ = options.record && can_be_recorded();
}

Executable::~Executable() = default;

// Chooses kernels and packs weights, the largest first: while a large one is packed its published form is in
// memory too, and at that time little else is.
void Executable::prepare(const Weights& weights, const States* states) {
  struct Wanted {
    const std::string* name;
    TensorView* view;
    WeightPacking packing;
  };
  std::vector<Wanted> wanted;
  const auto& nodes = graph_.nodes();
  steps_.resize(nodes.size());
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    Step& step = steps_[n];
    std::vector<TensorSpec> in, out;
    for (ValueId id : nodes[n].in) in.push_back(graph_.value(id).spec);
    for (ValueId id : nodes[n].out) out.push_back(graph_.value(id).spec);
    step.prepared = of_layer(nodes[n], [&] { return device_.prepare(nodes[n].op, {in, out}); });
    for (const TensorSpec& spec : in) step.in.push_back({nullptr, spec.shape, spec.dtype});
    for (const TensorSpec& spec : out) step.out.push_back({nullptr, spec.shape, spec.dtype});
    std::size_t workspace = round_up(step.prepared.workspace_bytes);
    for (std::size_t i = 0; i < in.size(); ++i) {
      const Value& value = graph_.value(nodes[n].in[i]);
      const auto& packings = step.prepared.packings;
      const auto packing = std::find_if(packings.begin(), packings.end(), [&](const WeightPacking& p) {
        return p.input == static_cast<int>(i);
      });
      if (value.role == Role::state) {
        step.in[i] = state_of(value, states);
        if (packing == packings.end()) continue;
        step.repack.push_back({&*packing, step.in[i], workspace});
        workspace = round_up(workspace + packing->bytes);
      }
      if (value.role != Role::weight) continue;
      const Shape& published = weights.at(value.name).view.shape;
      if (published != value.spec.shape)
        throw Error(ErrorCode::bad_model,
                    fmt::format("{}: expected {}, {} has {}", value.name, to_string(value.spec.shape),
                                weights.source(), to_string(published)));
      wanted.push_back(
          {&value.name, &step.in[i],
           packing != packings.end() ? *packing : plain_packing(static_cast<int>(i), in[i].bytes())});
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      const Value& value = graph_.value(nodes[n].out[i]);
      if (value.role == Role::state) step.out[i] = state_of(value, states);
    }
    workspace_bytes_.push_back(step.repack.empty() ? step.prepared.workspace_bytes : workspace);
  }
  std::stable_sort(wanted.begin(), wanted.end(),
                   [](const Wanted& a, const Wanted& b) { return a.packing.bytes > b.packing.bytes; });
  for (Wanted& want : wanted) {
    packed_.push_back(weights.packed(*want.name, want.packing, device_));
    want.view->data = const_cast<void*>(packed_.back().get());
  }
}

// Gives every value and workspace its address.
void Executable::bind() {
  const auto& nodes = graph_.nodes();
  views_.resize(graph_.values().size());
  for (std::size_t i = 0; i < views_.size(); ++i) {
    const Value& value = graph_.values()[i];
    views_[i] = {nullptr, value.spec.shape, value.spec.dtype};
    const bool planned = value.role != Role::weight && value.role != Role::state;
    if (guarded_) guarded_->values.push_back(planned ? guarded_->make(value.spec.bytes()) : Guarded::Zone{});
    if (planned)
      views_[i].data =
          guarded_ ? guarded_->values[i].data() : static_cast<std::byte*>(arena_.get()) + plan_.offset[i];
  }
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    Step& step = steps_[n];
    const auto bind_to = [&](TensorView& view, ValueId id) {
      if (const TensorView& planned = views_[static_cast<std::size_t>(id)]; planned.data)
        view.data = planned.data;
    };
    for (std::size_t i = 0; i < nodes[n].in.size(); ++i) bind_to(step.in[i], nodes[n].in[i]);
    for (std::size_t i = 0; i < nodes[n].out.size(); ++i) bind_to(step.out[i], nodes[n].out[i]);
    if (guarded_) guarded_->workspaces.push_back(guarded_->make(workspace_bytes_[n]));
    if (workspace_bytes_[n] > 0)
      step.workspace = guarded_ ? guarded_->workspaces[n].data()
                                : static_cast<std::byte*>(arena_.get()) + plan_.workspace_offset[n];
    for (const Step::Repack& repack : step.repack)
      step.in[static_cast<std::size_t>(repack.packing->input)].data =
          static_cast<std::byte*>(step.workspace) + repack.at;
  }
  if (!guarded_) return;
  guarded_->last_reader.assign(views_.size(), -1);
  for (const Buffer& buffer : plan_.buffers) {
    const ValueId id = graph_.find(buffer.name);
    if (id >= 0 && graph_.value(id).role == Role::temp && !graph_.value(id).kept &&
        buffer.last < static_cast<int>(nodes.size()))
      guarded_->last_reader[static_cast<std::size_t>(id)] = buffer.last;
  }
}

ValueId Executable::id_of(std::string_view name) const {
  const ValueId id = graph_.find(name);
  if (id < 0 || graph_.value(id).role == Role::weight || graph_.value(id).role == Role::state)
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: the program has no such value", name));
  return id;
}

TensorView Executable::view(std::string_view name) const {
  return views_[static_cast<std::size_t>(id_of(name))];
}

// Where the host finds the value, or null if that is nowhere.
const std::byte* Executable::staged(ValueId id) const {
  if (!staging_) return static_cast<const std::byte*>(views_[static_cast<std::size_t>(id)].data);
  const std::size_t offset = plan_.offset[static_cast<std::size_t>(id)];
  if (graph_.value(id).role == Role::input) return staging_.get() + (offset - plan_.inputs.offset);
  if (fetches_ && graph_.value(id).kept)
    return staging_.get() + plan_.inputs.bytes + (offset - plan_.outputs.offset);
  return nullptr;
}

void* Executable::input(std::string_view name) {
  const ValueId id = id_of(name);
  if (graph_.value(id).role != Role::input)
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: is no input of the program", name));
  return const_cast<std::byte*>(staged(id));
}

void Executable::set(std::string_view name, const void* host, std::size_t bytes) {
  void* const target = input(name);
  if (bytes != view(name).bytes())
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: expected {} bytes, got {}", name, view(name).bytes(), bytes));
  if (bytes > 0) std::memcpy(target, host, bytes);
}

void Executable::get(std::string_view name, void* host, std::size_t bytes, std::size_t offset) const {
  const ValueId id = id_of(name);
  const TensorView source = view(name);
  if (offset > source.bytes() || bytes > source.bytes() - offset)
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: has {} bytes, {} asked for from {} on", name,
                                                         source.bytes(), bytes, offset));
  if (bytes == 0) return;
  if (const std::byte* on_host = staged(id)) {
    std::memcpy(host, on_host + offset, bytes);
  } else {
    device_.download(host, static_cast<const std::byte*>(source.data) + offset, bytes);
  }
}

void Executable::send_inputs() {
  if (!staging_) return;
  if (!guarded_) {
    device_.queue_upload(static_cast<std::byte*>(arena_.get()) + plan_.inputs.offset, staging_.get(),
                         plan_.inputs.bytes);
    return;
  }
  for (std::size_t i = 0; i < views_.size(); ++i)
    if (graph_.values()[i].role == Role::input)
      device_.upload(views_[i].data, staged(static_cast<ValueId>(i)), views_[i].bytes());
}

void Executable::fetch_outputs() {
  if (!fetches_) return;
  device_.queue_download(staging_.get() + plan_.inputs.bytes,
                         static_cast<const std::byte*>(arena_.get()) + plan_.outputs.offset,
                         plan_.outputs.bytes);
}

void Executable::run_node(std::size_t n, void* stream) {
  Step& step = steps_[n];
  for (const Step::Repack& repack : step.repack) {
    void* const packed = static_cast<std::byte*>(step.workspace) + repack.at;
    if (repack.packing->pack_on_device) {
      repack.packing->pack_on_device(repack.published, packed, stream);
    } else {
      repack.packing->pack(repack.published, packed);
    }
  }
  of_layer(graph_.nodes()[n], [&] { step.prepared.run({step.in, step.out, step.workspace, stream}); });
}

// Copies that are still on their way use memory that the caller of what throws may then write or free.
template <class F>
void Executable::waiting_on_error(F&& f) {
  try {
    f();
  } catch (...) {
    try {
      device_.synchronize();
    } catch (const Error&) {  // has failed altogether; the first error says more
    }
    recording_ = nullptr;  // it may be what failed
    throw;
  }
}

// Not guarded memory, which is looked at between nodes, nor weights that the host has to pack before each
// run.
bool Executable::can_be_recorded() const {
  if (!device_.records() || guarded_) return false;
  return std::all_of(steps_.begin(), steps_.end(), [](const Step& step) {
    return std::all_of(step.repack.begin(), step.repack.end(), [](const Step::Repack& repack) {
      return static_cast<bool>(repack.packing->pack_on_device);
    });
  });
}

void Executable::run_watched(const std::function<bool(const Node&, std::span<const TensorView>)>& seen) {
  waiting_on_error([&] {
    send_inputs();
    if (counts_) ++counts_->eager;
    void* const stream = device_.stream();
    for (std::size_t n = 0; n < steps_.size(); ++n) {
      run_node(n, stream);
      device_.synchronize();
      if (!seen(graph_.nodes()[n], steps_[n].out)) return;
    }
  });
}

void Executable::queue_run(std::vector<NodeTime>* times) {
  send_inputs();
  run_steps(times);
  fetch_outputs();
}

// The first run records while the device is busy with it: no time is lost, and all kernels have been loaded,
// which older drivers refuse to do in the middle of a capture.
void Executable::run(std::vector<NodeTime>* times) {
  RunCounts uncounted, &counts = counts_ ? *counts_ : uncounted;
  waiting_on_error([&] {
    if (recording_ && !times) {
      device_.replay(*recording_);
      ++counts.replays;
    } else {
      queue_run(times);
      ++counts.eager;
      if (records_ && !recording_ && !times) {
        recording_ = device_.record([&] { queue_run(nullptr); });
        ++counts.recordings;
      }
    }
    device_.synchronize();
  });
}

// What surrounds the repeats (a launch, a wait) is in the time of one as in that of several, and cancels out.
void Executable::run_repeated(int repeats, std::vector<NodeTime>& times) {
  using Clock = std::chrono::steady_clock;
  times.clear();
  waiting_on_error([&] {
    send_inputs();
    if (counts_) ++counts_->eager;
    void* const stream = device_.stream();
    for (std::size_t n = 0; n < steps_.size(); ++n) {
      const auto queue = [&](int count) {
        for (int i = 0; i < count; ++i) run_node(n, stream);
      };
      const auto timed = [&](int count) {
        const auto recorded = can_be_recorded() ? device_.record([&] { queue(count); }) : nullptr;
        if (recorded) device_.replay(*recorded);  // the first replay also makes it ready
        device_.synchronize();
        const Clock::time_point start = Clock::now();
        recorded ? device_.replay(*recorded) : queue(count);
        device_.synchronize();
        return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
      };
      queue(1);
      const double one = timed(1), several = timed(1 + repeats);
      const Node& node = graph_.nodes()[n];
      times.push_back({node.layer, node.stage, steps_[n].prepared.implementation,
                       std::max(0.0, several - one) / repeats});
    }
  });
}

void Executable::run_steps(std::vector<NodeTime>* times) {
  using Clock = std::chrono::steady_clock;
  if (times) times->clear();
  void* const stream = device_.stream();
  for (std::size_t n = 0; n < steps_.size(); ++n) {
    Step& step = steps_[n];
    const Clock::time_point start = Clock::now();
    run_node(n, stream);
    const Node& node = graph_.nodes()[n];
    if (times) {
      device_.synchronize();
      times->push_back({node.layer, node.stage, step.prepared.implementation,
                        std::chrono::duration<double, std::milli>(Clock::now() - start).count()});
    }
    if (!guarded_) continue;
    device_.synchronize();
    bool intact = guarded_->intact(guarded_->workspaces[n]);
    for (ValueId id : node.out)
      if (graph_.value(id).role == Role::temp)
        intact = intact && guarded_->intact(guarded_->values[static_cast<std::size_t>(id)]);
    if (!intact)
      throw Error(ErrorCode::device,
                  fmt::format("{}: {} wrote outside its output", node.layer, name_of(node.op)));
    for (std::size_t i = 0; i < views_.size(); ++i)
      if (guarded_->last_reader[i] == static_cast<int>(n)) guarded_->unset(guarded_->values[i]);
  }
}

}  // namespace frcnn
