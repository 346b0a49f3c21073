#include "support/emulated_card.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/HPUHooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "emulation/recording.h"
#include "focus/core/error.h"
#include "ops/cuda/cuda_kernels.h"
#include "support/devices.h"

namespace focus::testing {
namespace {

using at::Tensor;
using at::TensorList;

// A type of device that LibTorch leaves to others and yet moves modules to.
constexpr auto kCard = at::kHPU;
constexpr c10::DispatchKeySet kKeys{c10::DispatchKey::HPU};
constexpr int kCards = 2;
thread_local c10::DeviceIndex current_card = 0;
std::atomic<int64_t> reads, uploads, allocations, operators;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr at::DeviceType static_type = kCard;
  at::DeviceType type() const override { return kCard; }
  at::Device exchangeDevice(at::Device to) const override {
    return {kCard, std::exchange(current_card, to.has_index() ? to.index() : current_card)};
  }
  at::Device getDevice() const override { return {kCard, current_card}; }
  void setDevice(at::Device to) const override { exchangeDevice(to); }
  void uncheckedSetDevice(at::Device to) const noexcept override { exchangeDevice(to); }
  c10::Stream getStream(at::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getDefaultStream(at::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getStreamFromGlobalPool(at::Device device, bool) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return kCards; }
  void synchronizeDevice(c10::DeviceIndex) const override {}
  // All work is done when its call returns.
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(HPU, Guard)

std::atomic<int64_t> held_bytes, peak_bytes;

/// All memory of tensors on the cards. What lies at one place may be there several times.
class Ranges {
 public:
  using Range = std::pair<const char*, std::size_t>;
  void add(const void* data, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    all_.emplace(static_cast<const char*>(data), bytes);
  }
  void remove(const void* data, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    all_.erase(all_.find({static_cast<const char*>(data), bytes}));
  }
  bool holds(const void* data) const {
    const std::lock_guard lock(mutex_);
    const auto* at = static_cast<const char*>(data);
    return std::any_of(all_.begin(), all_.end(),
                       [&](const Range& r) { return at >= r.first && at < r.first + r.second; });
  }
  std::vector<std::pair<Range, std::string>> copied() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<Range, std::string>> out;
    for (const Range& r : all_) out.emplace_back(r, std::string(r.first, r.second));
    return out;
  }
  /// Where there is still such a range.
  void restore(const std::vector<std::pair<Range, std::string>>& copies) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [range, bytes] : copies) {
      if (all_.contains(range)) std::memcpy(const_cast<char*>(range.first), bytes.data(), bytes.size());
    }
  }

 private:
  mutable std::mutex mutex_;
  std::multiset<Range> all_;
};
Ranges& ranges = *new Ranges;  // some tensors live longer than what the program would take down at its end

struct Block {
  explicit Block(std::size_t size) : data(size > 0 ? c10::alloc_cpu(size) : nullptr), bytes(size) {
    ranges.add(data, bytes);
    for (int64_t now = held_bytes += static_cast<int64_t>(bytes), peak = peak_bytes;
         now > peak && !peak_bytes.compare_exchange_weak(peak, now);) {
    }
  }
  ~Block() {
    ranges.remove(data, bytes);
    held_bytes -= static_cast<int64_t>(bytes);
    c10::free_cpu(data);
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  void* data;
  std::size_t bytes;
};

/// What keeps the memory of a tensor on the card that an operator of the CPU made.
struct Held {
  Held(const Tensor& tensor, std::vector<Tensor> of)
      : made(tensor),
        inputs(std::move(of)),
        bytes(tensor.storage().nbytes() -
              static_cast<std::size_t>(tensor.storage_offset()) * tensor.element_size()) {
    ranges.add(made.data_ptr(), bytes);
  }
  ~Held() { ranges.remove(made.data_ptr(), bytes); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  Tensor made;
  std::vector<Tensor> inputs;  // one of which it may be a view of
  std::size_t bytes;           // to the end of its storage
};

/// A graph. While it records, operators and kernels run, so that their successors have something to read, and
/// what was in memory is put back at the end.
class Recording final : public ops::RecordedWork {
 public:
  void record(const std::function<void()>& work) override;
  void replay() override {
    FOCUS_CHECK(!steps_.empty(), "nothing is recorded");
    for (const auto& step : steps_) step();
  }
  void add(std::function<void()> step) { steps_.push_back(std::move(step)); }
  /// Keeps what was allocated during the recording.
  void keep(std::shared_ptr<Block> block) { blocks_.push_back(std::move(block)); }
  void keep(std::shared_ptr<Held> made) { made_.push_back(std::move(made)); }

 private:
  std::vector<std::function<void()>> steps_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::vector<std::shared_ptr<Held>> made_;
};
thread_local Recording* recording = nullptr;
std::atomic<int64_t> last_launches;

void refuse_in_recording(const std::string& what) {
  if (recording != nullptr)
    throw std::runtime_error(what + ": operation not permitted while a graph is recorded");
}
void count_read(const std::string& what) {
  ++reads;
  refuse_in_recording(what);
}
void count_upload(const std::string& what) {
  ++uploads;
  refuse_in_recording(what);
}

void Recording::record(const std::function<void()>& work) {
  steps_.clear(), blocks_.clear(), made_.clear();
  const auto before = ranges.copied();
  recording = this, emu::recording = &steps_;
  const auto end = [&] {
    recording = nullptr, emu::recording = nullptr;
    ranges.restore(before);
  };
  try {
    work();
  } catch (...) {
    end();
    steps_.clear(), blocks_.clear(), made_.clear();
    throw;
  }
  end();
  last_launches = static_cast<int64_t>(steps_.size());
}

struct Memory final : c10::Allocator {
  static void release(void* context) { delete static_cast<std::shared_ptr<Block>*>(context); }
  at::DataPtr allocate(size_t bytes) override {
    ++allocations;
    auto block = std::make_shared<Block>(bytes);
    if (recording != nullptr) recording->keep(block);
    void* data = block->data;
    return {data, new std::shared_ptr<Block>(std::move(block)), &release, at::Device(kCard, current_card)};
  }
  at::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    default_copy_data(to, from, count);
  }
} memory;

struct HPUHooks final : at::HPUHooksInterface {
  explicit HPUHooks(at::HPUHooksArgs) {}
  bool hasHPU() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(at::DeviceIndex) const override { return true; }
  void init() const override {}
  at::DeviceIndex deviceCount() const override { return kCards; }
  void setCurrentDevice(at::DeviceIndex card) const override { current_card = card; }
  at::DeviceIndex getCurrentDevice() const override { return current_card; }
  at::DeviceIndex exchangeDevice(at::DeviceIndex card) const override {
    return std::exchange(current_card, card);
  }
  at::DeviceIndex maybeExchangeDevice(at::DeviceIndex card) const override { return exchangeDevice(card); }
  at::Device getDeviceFromPtr(void*) const override { return {kCard, current_card}; }
  at::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  const at::Generator& getDefaultGenerator(at::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
};
using at::HPUHooksRegistry;
using at::RegistererHPUHooksRegistry;
REGISTER_HPU_HOOKS(HPUHooks)  // LibTorch looks for this very name

const bool registered = [] {
  c10::SetAllocator(kCard, &memory);
  return true;
}();

bool on_card(const Tensor& t) { return t.defined() && t.device().type() == kCard; }

Tensor on_cpu(const Tensor& t) {
  if (!on_card(t)) return t;
  const auto options = t.options().device(at::kCPU).requires_grad(false);
  if (t.numel() == 0) return at::empty(t.sizes(), options);  // operators make it as large as they need it
  return at::from_blob(t.data_ptr(), t.sizes(), t.strides(), options);
}

c10::Storage storage_of(const Tensor& made, const std::vector<Tensor>& inputs, at::Device device) {
  auto* held = new Held(made, inputs);
  return {c10::Storage::use_byte_size_t(), held->bytes,
          at::DataPtr(
              made.data_ptr(), held, [](void* h) { delete static_cast<Held*>(h); }, device),
          nullptr, false};
}

Tensor on_the_card(const Tensor& made, const std::vector<Tensor>& inputs, at::Device device) {
  if (!made.defined() || on_card(made)) return made;
  Tensor out =
      at::detail::make_tensor<c10::TensorImpl>(storage_of(made, inputs, device), kKeys, made.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(made.sizes(), made.strides());
  return out;
}

const std::set<std::string> kWaits = {"aten::nonzero", "aten::masked_select",       "aten::_unique2",
                                      "aten::equal",   "aten::_local_scalar_dense", "aten::repeat_interleave",
                                      "aten::bincount"};

/// All tensors of arguments or results.
std::vector<Tensor> tensors_of(const std::vector<c10::IValue>& values) {
  std::vector<Tensor> out;
  for (const c10::IValue& value : values) {
    if (value.isTensor()) out.push_back(value.toTensor());
    if (value.isTensorList())
      for (const Tensor& t : value.toTensorVector()) out.push_back(t);
  }
  return out;
}

/// Notes an operator down: the same arguments at the same places, its results where they are now.
void note(const c10::OperatorHandle& op, const std::vector<c10::IValue>& passed,
          const std::vector<c10::IValue>& results) {
  const std::vector<Tensor> made = tensors_of(results);
  for (const Tensor& t : made) {
    if (t.defined() && t.numel() > 0 && !ranges.holds(t.data_ptr()))
      recording->keep(std::make_shared<Held>(t, std::vector<Tensor>{}));
  }
  recording->add([op, passed, made] {
    for (const Tensor& t : tensors_of(passed)) {
      if (t.defined() && t.dim() > 0 && t.numel() > 0 && !ranges.holds(t.data_ptr()))
        throw std::runtime_error(op.schema().name() + ": a graph reads memory that is no tensor's any more");
    }
    torch::jit::Stack stack(passed.begin(), passed.end());
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack);
    const std::vector<Tensor> again = tensors_of({stack.begin(), stack.end()});
    for (std::size_t i = 0; i < made.size(); ++i) {
      if (!made[i].defined() || made[i].data_ptr() == again[i].data_ptr()) continue;
      FOCUS_CHECK(made[i].sizes() == again[i].sizes(), op.schema().name(), " made another size");
      at::Tensor(made[i]).copy_(again[i]);
    }
  });
}

/// Runs an operator of LibTorch on the memory of the card's tensors.
void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::string& name = schema.name();
  ++operators;
  if (kWaits.contains(name)) count_read(name);
  const std::size_t num_arguments = schema.arguments().size(), first = stack->size() - num_arguments;
  std::vector<Tensor> inputs;
  std::optional<at::Device> device;
  const auto take = [&](const Tensor& t) {
    if (!t.defined()) return t;
    if (!on_card(t)) {
      // As on a card: numbers may come from the CPU, and so may what index() takes for rows.
      if (t.dim() > 0 && name != "aten::index" && name != "aten::index_put_" &&
          name != "aten::_index_put_impl_")
        throw std::runtime_error(
            name +
            ": Expected all tensors to be on the same device, but found one on the CPU beside one on a card");
      if (t.dim() > 0) count_upload(name);
      return t;
    }
    if (device.has_value() && *device != t.device())
      throw std::runtime_error(name + ": Expected all tensors to be on the same device, but found two cards");
    device = t.device();
    inputs.push_back(t);
    return on_cpu(t);
  };
  const std::vector<c10::IValue> arguments(stack->begin() + static_cast<int64_t>(first), stack->end());
  for (std::size_t i = 0; i < num_arguments; ++i) {
    c10::IValue& argument = (*stack)[first + i];
    if (argument.isTensor()) {
      argument = take(argument.toTensor());
    } else if (argument.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& t : argument.toTensorVector()) list.push_back(take(t));
      argument = list;
    } else if (argument.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const c10::IValue& t : argument.toListRef()) {
        const Tensor taken = t.isNone() ? Tensor() : take(t.toTensor());
        if (taken.defined() && taken.scalar_type() == at::kBool) count_read(name);
        list.push_back(taken.defined() ? std::optional(taken) : std::nullopt);
      }
      argument = list;
    } else if (argument.isDevice() && argument.toDevice().type() == kCard) {
      device = argument.toDevice();
      argument = at::Device(at::kCPU);
    }
  }
  const std::vector<c10::IValue> passed(stack->begin() + static_cast<int64_t>(first), stack->end());
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);

  const std::size_t num_returns = schema.returns().size(), first_return = stack->size() - num_returns;
  if (recording != nullptr)
    note(op, passed, {stack->begin() + static_cast<int64_t>(first_return), stack->end()});
  const at::Device there = device.value_or(at::Device(kCard, current_card));
  // What an operator wrote to lies in the card's memory already, unless it was made larger.
  for (std::size_t i = 0; i < num_arguments; ++i) {
    if (!arguments[i].isTensor() || !on_card(arguments[i].toTensor())) continue;
    const Tensor original = arguments[i].toTensor(), written = passed[i].toTensor();
    if (written.sizes() == original.sizes() &&
        (written.data_ptr() == original.data_ptr() || written.numel() == 0))
      continue;
    original.unsafeGetTensorImpl()->set_storage_keep_dtype(storage_of(written, {}, there));
    original.unsafeGetTensorImpl()->set_storage_offset(0);
    original.unsafeGetTensorImpl()->set_sizes_and_strides(written.sizes(), written.strides());
  }
  for (std::size_t i = 0; i < num_returns; ++i) {
    c10::IValue& value = (*stack)[first_return + i];
    const auto* alias = schema.returns()[i].alias_info();
    if (value.isTensor() && alias != nullptr && alias->isWrite()) {
      for (std::size_t j = 0; j < num_arguments; ++j) {
        const auto* other = schema.arguments()[j].alias_info();
        if (other != nullptr && *other == *alias) value = arguments[j];
      }
    } else if (value.isTensor()) {
      value = on_the_card(value.toTensor(), inputs, there);
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& t : value.toTensorVector()) list.push_back(on_the_card(t, inputs, there));
      value = list;
    }
  }
}

Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> type, std::optional<at::Layout>,
             std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(device.value_or(at::Device(kCard, current_card)));
  return at::detail::empty_generic(size, &memory, kKeys, c10::dtype_or_default(type), format);
}

Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> type,
                     std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  const c10::DeviceGuard guard(device.value_or(at::Device(kCard, current_card)));
  return at::detail::empty_strided_generic(size, stride, &memory, kKeys, c10::dtype_or_default(type));
}

Tensor& copy_(Tensor& to, const Tensor& from, bool) {
  if (!on_card(to)) count_read("copy_");
  if (!on_card(from)) count_upload("copy_");
  const Tensor to_there = on_cpu(to), from_there = on_cpu(from);
  to_there.copy_(from_there);
  if (recording != nullptr) recording->add([to_there, from_there] { to_there.copy_(from_there); });
  return to;
}

Tensor convolution(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                   at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                   at::IntArrayRef output_padding, int64_t groups) {
  refuse_in_recording("convolution");
  return on_the_card(
      at::convolution(on_cpu(input), on_cpu(weight), bias.has_value() ? std::optional(on_cpu(*bias)) : bias,
                      stride, padding, dilation, transposed, output_padding, groups),
      {}, input.device());
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(const Tensor& dy, const Tensor& input,
                                                        const Tensor& weight, at::IntArrayRef stride,
                                                        at::IntArrayRef padding, at::IntArrayRef dilation,
                                                        bool transposed, at::IntArrayRef output_padding,
                                                        int64_t groups, std::array<bool, 3> mask) {
  const auto [a, b, c] =
      at::convolution_backward(on_cpu(dy), on_cpu(input), on_cpu(weight), std::nullopt, stride, padding,
                               dilation, transposed, output_padding, groups, mask);
  return {on_the_card(a, {}, dy.device()), on_the_card(b, {}, dy.device()), on_the_card(c, {}, dy.device())};
}

TORCH_LIBRARY_IMPL(_, HPU, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

TORCH_LIBRARY_IMPL(aten, HPU, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("copy_", &copy_);
  library.impl("as_strided", &at::native::as_strided_tensorimpl);
  library.impl("view", &at::native::view);
  library.impl("_reshape_alias", &at::native::_reshape_alias);
  library.impl("unfold", &at::native::unfold);
  library.impl("resize_", &at::native::resize_);
  library.impl("convolution_overrideable", &convolution);
  library.impl("convolution_backward_overrideable", &convolution_backward);
}

const ops::CudaKernels kernels;
const bool entered = [] {
  ops::set_device_kernels(kCard, &kernels);
  return true;
}();

}  // namespace

int64_t recorded_launches() { return last_launches; }
int64_t peak_card_bytes() { return peak_bytes; }
CardCounts card_counts() { return {reads, uploads, allocations, operators}; }
void reset_card_counts() { reads = uploads = allocations = operators = 0; }

at::Device device_of(TestDevice device) {
  if (device == TestDevice::emulated) return emulated_card();
  return device == TestDevice::cuda ? at::kCUDA : at::kCPU;
}

std::string missing(TestDevice device) {
  return device == TestDevice::cuda ? "this program was linked with the emulated kernels" : "";
}

}  // namespace focus::testing

namespace focus::ops {

// What src/ops/cuda/device.cpp is for a card.
void* current_stream(const at::Device&) { return nullptr; }
bool CudaKernels::multiplies_e4m3(const at::Device&) const { return true; }
std::unique_ptr<RecordedWork> CudaKernels::recorded_work(const at::Device&) const {
  return std::make_unique<testing::Recording>();
}
int64_t CudaKernels::free_bytes(const at::Device&) const { return int64_t{1} << 30; }
int64_t CudaKernels::peak_bytes(const at::Device&) const { return testing::peak_card_bytes(); }

}  // namespace focus::ops
