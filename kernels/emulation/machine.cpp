// The emulator behind cuda.h. A fiber runs one thread of a block after another for as long as none has to
// wait, so a kernel without barriers costs a call per thread. A thread that waits keeps its fiber, and
// another fiber takes up the threads not started yet.
#include "cuda.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) (static_cast<void>(at), static_cast<void>(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) (static_cast<void>(at), static_cast<void>(size))
#define __sanitizer_start_switch_fiber(...)
#define __sanitizer_finish_switch_fiber(...)
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
extern "C" {  // The linker's bounds of what plain __shared__ declares; null where nothing does.
extern char __start_cuda_shared[] __attribute__((weak));
extern char __stop_cuda_shared[] __attribute__((weak));
}

// Saves the callee's registers and the stack pointer, and takes up those saved at `to`. (swapcontext does it
// on every machine, but with two system calls.)
#ifndef __x86_64__
#error "emu_switch is written for x86-64 alone"
#endif
extern "C" void emu_switch(void** save, void* to);
asm(R"(
.text
.globl emu_switch
.type emu_switch, @function
emu_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size emu_switch, .-emu_switch
)");

namespace emu {
bool reverse_order = [] {
  const char* order = std::getenv("FOCUS_EMULATION_ORDER");
  return order != nullptr && std::strcmp(order, "falling") == 0;
}();
namespace {

constexpr size_t kStack = 256 * 1024, kGuard = 4096, kMaxThreads = 1024,
                 kStacks = kMaxThreads * (kStack + kGuard);
constexpr size_t kMaxShared = 227 * 1024, kRedZone = 64;

struct Context {
  void* sp = nullptr;
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  size_t size = 0;
};

enum class State { kNew, kReady, kWaiting, kDone };
struct Copy {
  void* to;
  const void* from;
  size_t size;
};
struct Thread {
  uint3 index{};
  State state = State::kNew;
  Context* fiber = nullptr;
  uint32_t mask = 0;
  void* record = nullptr;
  const char *what = "", *file = "";
  int line = 0;
  void waits_in(const char* w, const char* f, int l) { what = w, file = f, line = l; }
  bool waits_with(const Thread& other) const {
    return line == other.line && file == other.file && mask == other.mask;
  }
  std::vector<Copy> copies;  // asked for and not waited for
};
struct Warp {
  uint32_t arrived = 0;
  uint32_t ordered = 0;  // the clock of its last __syncwarp
};
struct Piece {  // of shared memory
  const char* name;
  size_t at, size;
};

struct Machine {
  std::mutex mutex;
  char* const stacks = static_cast<char*>(
      mmap(nullptr, kStacks, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  std::vector<std::unique_ptr<Context>> fibers;
  std::vector<Context*> idle;
  Context scheduler, *on_fiber = nullptr;

  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Thread* current = nullptr;
  size_t count = 0, next = 0, done = 0, at_barrier = 0;
  void (*body)(const void*) = nullptr;
  const void* context = nullptr;
  std::string failure;
  cudaError_t error = cudaSuccess;

  alignas(64) char shared[kMaxShared * 2];
  size_t shared_top = 0, shared_size = 0;
  std::vector<Piece> pieces;
  uint64_t block = 0;  // counts blocks for ever, for SharedSlot

  // The clock of the race check: it ticks at every barrier; an access notes the time it was made at.
  uint32_t clock = 1, launch_start = 0, block_start = 0, barrier_clock = 0;
} machine;

void enter_fiber();

void switch_stacks(Context& from, Context& to) {
  [[maybe_unused]] const bool to_scheduler =
      &to == &machine.scheduler;  // which runs on the stack of whoever launches
  __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.size);
  emu_switch(&from.sp, to.sp);
  __sanitizer_finish_switch_fiber(from.fake_stack, to_scheduler ? &to.bottom : nullptr,
                                  to_scheduler ? &to.size : nullptr);
}

void to_scheduler() { switch_stacks(*machine.on_fiber, machine.scheduler); }

void to_fiber(Context* fiber) {
  machine.on_fiber = fiber;
  switch_stacks(machine.scheduler, *fiber);
  machine.on_fiber = nullptr;
  machine.current = nullptr;
}

void set_up(Context& fiber, char* bottom) {
  ASAN_UNPOISON_MEMORY_REGION(bottom, kStack);
  fiber = Context{};
  fiber.bottom = bottom;
  fiber.size = kStack;
  void** top = reinterpret_cast<void**>(bottom + kStack);
  *--top = nullptr;  // so that the stack is aligned at the entry as after a call
  *--top = reinterpret_cast<void*>(&enter_fiber);  // where emu_switch returns to
  for (int i = 0; i < 6; ++i) *--top = nullptr;    // the registers that it pops
  fiber.sp = top;
}

Context* idle_fiber() {
  Machine& m = machine;
  if (m.idle.empty()) {
    char* stack = m.stacks + m.fibers.size() * (kStack + kGuard);
    if (m.stacks == MAP_FAILED) std::abort();
    mprotect(stack, kGuard, PROT_NONE);  // an overflow faults
    m.fibers.push_back(std::make_unique<Context>());
    set_up(*m.fibers.back(), stack + kGuard);
    m.idle.push_back(m.fibers.back().get());
  }
  Context* fiber = m.idle.back();
  m.idle.pop_back();
  return fiber;
}

size_t ordered(size_t i) { return reverse_order ? machine.count - 1 - i : i; }

void make_current(Thread& thread) {
  machine.current = &thread;
  threadIdx = thread.index;
}

void enter_fiber() {
  Machine& m = machine;
  __sanitizer_finish_switch_fiber(nullptr, &m.scheduler.bottom, &m.scheduler.size);
  for (;;) {
    while (m.next < m.count) {
      Thread& thread = m.threads[ordered(m.next++)];
      thread.fiber = m.on_fiber;
      make_current(thread);
      m.body(m.context);
      thread.state = State::kDone;
      ++m.done;
    }
    m.idle.push_back(m.on_fiber);
    to_scheduler();
  }
}

void wait() {
  Thread& self = *machine.current;
  self.state = State::kWaiting;
  to_scheduler();
  make_current(self);
}

std::string place(const Thread& t) {
  return std::string(t.what) + " (" + t.file + ":" + std::to_string(t.line) + ")";
}

std::string where() {
  const auto triple = [](auto v) {
    return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
  };
  return " [block " + triple(blockIdx) + " of " + triple(gridDim) + ", threads " + triple(blockDim) + "]";
}

// Nobody can go on. Says who waits where.
std::string stuck() {
  std::string text = "divergence: ";
  for (size_t i = 0; i < machine.count;) {
    const Thread& first = machine.threads[i];
    const auto same = [&](const Thread& t) {
      return t.state == first.state && (t.state == State::kDone || t.waits_with(first));
    };
    size_t end = i + 1;
    while (end < machine.count && same(machine.threads[end])) ++end;
    text += (i == 0 ? "threads " : "; threads ") + std::to_string(i) + "-" + std::to_string(end - 1) +
            (first.state == State::kDone ? " have exited" : " wait in " + place(first));
    i = end;
  }
  return text;
}

[[noreturn]] void abandon(
    const std::string& message) {  // Fibers in the midst of a kernel are dropped without unwinding.
  Machine& m = machine;
  m.idle.clear();
  for (auto& fiber : m.fibers) {
    set_up(*fiber, static_cast<char*>(const_cast<void*>(fiber->bottom)));
    m.idle.push_back(fiber.get());
  }
  m.current = nullptr;
  throw Failure(message + where());
}

void* take_shared(const char* name, size_t size) {
  Machine& m = machine;
  char* data = m.shared + m.shared_top;
  m.shared_size += size;
  if (m.shared_size > kMaxShared) fail("more than 227 KiB of shared memory");
  m.pieces.push_back({name, m.shared_top, size});
  m.shared_top += (size + kRedZone + 15) / 16 * 16;
  ASAN_POISON_MEMORY_REGION(data, m.shared_top - static_cast<size_t>(data - m.shared));
  ASAN_UNPOISON_MEMORY_REGION(data, size);
  std::memset(data, 0xff, size);  // NaN in float, bf16 and half
  return data;
}

__attribute__((no_sanitize_address)) void poison_plain_shared() {
  for (volatile char* p = __start_cuda_shared; p != __stop_cuda_shared; ++p) *p = static_cast<char>(0xff);
}

void run_block(size_t dynamic_shared) {
  Machine& m = machine;
  ++m.block;
  m.block_start = m.barrier_clock = ++m.clock;
  ASAN_POISON_MEMORY_REGION(m.shared, sizeof(m.shared));
  m.pieces.clear();
  m.shared_top = m.shared_size = 0;
  take_shared("dynamic", dynamic_shared);
  poison_plain_shared();
  for (size_t i = 0; i < m.count; ++i) m.threads[i].state = State::kNew, m.threads[i].copies.clear();
  std::fill(m.warps.begin(), m.warps.end(), Warp{});
  m.next = m.done = m.at_barrier = 0;

  while (m.done < m.count) {
    bool moved = false;
    while (m.next < m.count && m.failure.empty()) to_fiber(idle_fiber()), moved = true;
    for (size_t i = 0; i < m.count && m.failure.empty(); ++i) {
      Thread& thread = m.threads[ordered(i)];
      if (thread.state == State::kReady) to_fiber(thread.fiber), moved = true;
    }
    if (m.failure.empty() && !moved && m.done < m.count) m.failure = stuck();
    if (!m.failure.empty()) abandon(std::exchange(m.failure, {}));
  }
}

}  // namespace

void fail(const std::string& message) {
  if (machine.on_fiber == nullptr) abandon(message);
  machine.failure = message;
  to_scheduler();
  std::abort();
}

void run(dim3 grid, dim3 block, size_t dynamic_shared, void (*body)(const void*), const void* context) {
  Machine& m = machine;
  const std::lock_guard lock(m.mutex);
  const uint64_t count = uint64_t{block.x} * block.y * block.z;
  const auto outside = [](unsigned value, unsigned limit) { return value - 1 >= limit; };
  if (outside(block.x, 1024) || outside(block.y, 1024) || outside(block.z, 64) || count > kMaxThreads ||
      outside(grid.x, 0x7fffffffu) || outside(grid.y, 65535) || outside(grid.z, 65535) ||
      dynamic_shared > kMaxShared) {
    m.error = cudaErrorInvalidConfiguration;
    return;
  }
  gridDim = grid;
  blockDim = block;
  m.count = count;
  m.body = body;
  m.context = context;
  m.launch_start = m.clock;
  m.threads.assign(count, Thread{});
  m.warps.assign((count + 31) / 32, Warp{});
  const auto index = [](uint64_t i, dim3 d) {
    return uint3{static_cast<unsigned>(i % d.x), static_cast<unsigned>(i / d.x % d.y),
                 static_cast<unsigned>(i / d.x / d.y)};
  };
  for (size_t i = 0; i < count; ++i) m.threads[i].index = index(i, block);
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t n = 0; n < blocks; ++n) {
    blockIdx = index(reverse_order ? blocks - 1 - n : n, grid);
    run_block(dynamic_shared);
  }
}

void barrier(const char* file, int line) {
  Machine& m = machine;
  Thread& self = *m.current;
  self.mask = 0;
  self.waits_in("__syncthreads", file, line);
  if (++m.at_barrier < m.count) return wait();
  for (size_t i = 0; i < m.count; ++i)
    if (!m.threads[i].waits_with(self))
      fail("divergence: threads meet in different barriers, " + place(m.threads[i]) + " and " + place(self));
  for (size_t i = 0; i < m.count; ++i)
    if (&m.threads[i] != &self) m.threads[i].state = State::kReady;
  m.at_barrier = 0;
  m.barrier_clock = ++m.clock;
}

int lane() { return static_cast<int>((machine.current - machine.threads.data()) % 32); }

void warp(uint32_t mask, void* record, Combine combine, const char* what, const char* file, int line) {
  Machine& m = machine;
  Thread& self = *m.current;
  const size_t index = static_cast<size_t>(&self - m.threads.data());
  Warp& warp = m.warps[index / 32];
  Thread* lanes = &m.threads[index / 32 * 32];
  self.mask = mask;
  self.record = record;
  self.waits_in(what, file, line);
  if (!(mask >> index % 32 & 1)) fail("a lane is not in the mask of its own " + place(self));
  warp.arrived |= 1u << index % 32;
  if ((warp.arrived & mask) != mask) return wait();
  void* records[32] = {};
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    if (!lanes[i].waits_with(self))
      fail("divergence: lanes meet in different warp operations, " + place(lanes[i]) + " and " + place(self));
    records[i] = lanes[i].record;
  }
  combine(records, mask);
  warp.arrived &= ~mask;
  for (int i = 0; i < 32; ++i)
    if ((mask >> i & 1) && &lanes[i] != &self) lanes[i].state = State::kReady;
}

void order_warp() {
  machine.warps[static_cast<size_t>(machine.current - machine.threads.data()) / 32].ordered = ++machine.clock;
}

void* dynamic_shared() { return machine.shared; }

void copy_later(void* to, const void* from, size_t size) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % size != 0)
    fail("a misaligned asynchronous copy");
  machine.current->copies.push_back({to, from, size});
}

void copy_now() {
  for (const Copy& copy : machine.current->copies) {
    note_access(copy.from, copy.size, false, false);
    note_access(copy.to, copy.size, true, false);
    std::memcpy(copy.to, copy.from, copy.size);
  }
  machine.current->copies.clear();
}

void* SharedSlot::get(size_t size) {
  if (block != machine.block) {
    data = take_shared(name, size);
    block = machine.block;
  }
  return data;
}

// ---- the check of memory accesses: kernels built with -fsanitize=thread call the functions below for every
// access ---------------------
#ifdef EMU_CHECK_MEMORY
namespace {

constexpr int16_t kAtomic = 2000, kAll = 3000,
                  kWarpOf = 4000;  // beside thread numbers: atomics; several warps; several lanes of one warp
struct Cell {                      // of one byte
  uint32_t write_clock = 0, read_clock = 0;
  uint32_t read_before = 0;  // the launch in which a block before the last reading one read it
  int16_t writer = 0, reader = 0;
};
std::unordered_map<uintptr_t, std::array<Cell, 4096>> pages;

Cell& cell(uintptr_t at) {
  static uintptr_t key = 0;
  static std::array<Cell, 4096>* page = nullptr;
  if (page == nullptr || key != at >> 12) page = &pages[key = at >> 12];
  return (*page)[at & 4095];
}

// Whether what `who` did at `clock` in this block is ordered before what thread `self` does now.
bool happened_before(uint32_t clock, int16_t who, int16_t self, bool atomic) {
  if (clock < machine.barrier_clock || who == self || (atomic && who == kAtomic)) return true;
  const int warp = self / 32;
  const bool same_warp = who < kAtomic ? who / 32 == warp : who == kWarpOf + warp;
  return same_warp && clock < machine.warps[static_cast<size_t>(warp)].ordered;
}

const char* check_byte(Cell& c, int16_t self, bool write, bool atomic, bool shared) {
  const Machine& m = machine;
  if (c.write_clock >= m.block_start) {
    if (!happened_before(c.write_clock, c.writer, self, atomic))
      return "race: another thread wrote this since the last barrier";
  } else if (shared) {
    if (!write || atomic) return "reads what no thread of the block has written";
  } else if (c.write_clock > m.launch_start && !(atomic && c.writer == kAtomic)) {
    return "race: another block of this launch wrote this";
  }
  const bool read_here = c.read_clock >= m.block_start;
  const bool read_elsewhere = !shared && !read_here && c.read_clock > m.launch_start;
  if (write) {
    if (read_here && !happened_before(c.read_clock, c.reader, self, false))
      return "race: another thread read this since the last barrier";
    if (!shared && (read_elsewhere || c.read_before == m.launch_start))
      return "race: another block of this launch read this";
    c.write_clock = m.clock;
    c.writer = atomic ? kAtomic : self;
    return nullptr;
  }
  if (read_elsewhere) c.read_before = m.launch_start;
  const bool same_warp = c.reader < kAtomic ? c.reader / 32 == self / 32 : c.reader == kWarpOf + self / 32;
  if (!read_here || happened_before(c.read_clock, c.reader, self, false))
    c.reader = self;
  else
    c.reader = same_warp ? static_cast<int16_t>(kWarpOf + self / 32) : kAll;
  c.read_clock = m.clock;
  return nullptr;
}

void access(const void* pointer, size_t size, bool write, bool atomic, const void* pc) {
  Machine& m = machine;
  const auto at = reinterpret_cast<uintptr_t>(pointer);
  const auto within = [at](const void* begin, size_t length) {
    return at - reinterpret_cast<uintptr_t>(begin) < length;
  };
  if (m.current == nullptr || within(m.stacks, kStacks)) return;
  const bool arena = within(m.shared, sizeof(m.shared));
  const bool shared =
      arena || within(__start_cuda_shared, static_cast<size_t>(__stop_cuda_shared - __start_cuda_shared));
  const auto self = static_cast<int16_t>(m.current - m.threads.data());
  const Piece* piece = nullptr;
  const size_t offset = at - reinterpret_cast<uintptr_t>(m.shared);
  for (const Piece& p : m.pieces)
    if (arena && offset >= p.at && offset + size <= p.at + p.size) piece = &p;
  const char* wrong = arena && piece == nullptr ? "outside of every array" : nullptr;
  for (size_t i = 0; i < size && wrong == nullptr; ++i)
    wrong = check_byte(cell(at + i), self, write, atomic, shared);
  if (wrong == nullptr) return;
  Dl_info info{};
  dladdr(pc, &info);
  char code[32];
  std::snprintf(code, sizeof(code), "%#tx",
                static_cast<const char*>(pc) - static_cast<const char*>(info.dli_fbase) - 1);
  const std::string kind = atomic ? "atomic" : write ? "write" : "read";
  fail((shared ? "shared memory" : "global memory") +
       (piece ? " '" + std::string(piece->name) + "' + " + std::to_string(offset - piece->at) : "") + ": " +
       wrong + "; thread " + std::to_string(self) + ", " + kind + " of " + std::to_string(size) +
       " bytes (addr2line -Cfpe " + (info.dli_fname ? info.dli_fname : "?") + " " + code + ")");
}

}  // namespace

void note_access(const void* at, size_t size, bool write, bool atomic) {
  access(at, size, write, atomic, __builtin_return_address(0));
}
}  // namespace emu

extern "C" {
void __tsan_init() {}
void __tsan_vptr_read(void*) {}  // host code in the kernels' files
void __tsan_vptr_update(void*, void*) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define EMU_ACCESS(name, size, write) \
  void __tsan_##name(void* at) { emu::access(at, size, write, false, __builtin_return_address(0)); }
#define EMU_ACCESSES(n)                   \
  EMU_ACCESS(read##n, n, false)           \
  EMU_ACCESS(write##n, n, true)           \
  EMU_ACCESS(unaligned_read##n, n, false) \
  EMU_ACCESS(unaligned_write##n, n, true)
void __tsan_read_range(void* at, size_t size) {
  emu::access(at, size, false, false, __builtin_return_address(0));
}
void __tsan_write_range(void* at, size_t size) {
  emu::access(at, size, true, false, __builtin_return_address(0));
}
EMU_ACCESSES(1) EMU_ACCESSES(2) EMU_ACCESSES(4) EMU_ACCESSES(8) EMU_ACCESSES(16)
}
#else
void note_access(const void*, size_t, bool, bool) {}
}  // namespace emu
#endif

cudaError_t cudaGetLastError() { return std::exchange(emu::machine.error, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}
