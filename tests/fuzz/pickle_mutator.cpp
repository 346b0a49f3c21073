#include "pickle_mutator.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "formats/archive_bytes.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace focus::formats::fuzz {
namespace {

using testing::global, testing::integer, testing::text, testing::storage, testing::tensor;

/// Length of the opcode at `at` with its argument; 1 where it is unknown or leaves the pickle.
std::size_t length_of(const std::string& pickle, std::size_t at) {
  const auto number = [&](std::size_t width) {
    std::uint64_t value = 0;
    if (pickle.size() - at - 1 >= width) std::memcpy(&value, pickle.data() + at + 1, width);
    return value;
  };
  std::uint64_t length = 1;
  switch (static_cast<std::uint8_t>(pickle[at])) {
    case 0x80:
    case 'K':
    case 'q':
    case 'h':
      length = 2;
      break;
    case 'M':
      length = 3;
      break;
    case 'J':
    case 'r':
    case 'j':
      length = 5;
      break;
    case 'G':
    case 0x95:
      length = 9;
      break;
    case 'X':
    case 'B':
    case 0x8b:
      length = 5 + number(4);
      break;
    case 0x8c:
    case 'C':
    case 0x8a:
      length = 2 + number(1);
      break;
    case 0x8d:
    case 0x8e:
      length = 9 + number(8);
      break;
    case 'c': {
      const std::size_t first = pickle.find('\n', at);
      const std::size_t second = first == std::string::npos ? first : pickle.find('\n', first + 1);
      length = second == std::string::npos ? 1 : second + 1 - at;
      break;
    }
    default:
      break;
  }
  return length <= pickle.size() - at ? static_cast<std::size_t>(length) : 1;
}

/// Where the opcodes begin, and the end.
std::vector<std::size_t> boundaries_of(const std::string& pickle) {
  std::vector<std::size_t> boundaries = {0};
  while (boundaries.back() < pickle.size())
    boundaries.push_back(boundaries.back() + length_of(pickle, boundaries.back()));
  return boundaries;
}

std::string random_integer(std::minstd_rand& random) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  const std::array<std::int64_t, 16> interesting = {
      0, 1, 2, 3, 4, 6, 8, 64, 65, 255, -1, 1 << 20, std::int64_t{1} << 32, kMax, kMax / 2 + 1, -kMax};
  return integer(interesting[random() % interesting.size()]);
}

std::string random_text(std::minstd_rand& random) {
  const std::array<const char*, 18> texts = {"storage",
                                             "cpu",
                                             "0",
                                             "1",
                                             "2",
                                             "latin1",
                                             "w",
                                             "state_dict",
                                             "model",
                                             "module",
                                             "scale_fwd",
                                             "amax_history_fwd",
                                             "m._extra_state",
                                             "\xc3\xbf",
                                             "\xc4\x80",
                                             "",
                                             "cuda:0",
                                             "_metadata"};
  return text(texts[random() % texts.size()]);
}

std::string random_global(std::minstd_rand& random) {
  const std::array<std::pair<const char*, const char*>, 16> globals = {
      {{"torch._utils", "_rebuild_tensor_v2"},
       {"torch._utils", "_rebuild_tensor_v3"},
       {"torch._utils", "_rebuild_parameter"},
       {"collections", "OrderedDict"},
       {"_io", "BytesIO"},
       {"_codecs", "encode"},
       {"__builtin__", "bytes"},
       {"torch", "FloatStorage"},
       {"torch", "ByteStorage"},
       {"torch", "DoubleStorage"},
       {"torch.storage", "UntypedStorage"},
       {"torch", "float8_e4m3fn"},
       {"torch", "bfloat16"},
       {"torch", "HalfStorage"},
       {"transformer_engine.common.recipe", "DelayedScaling"},
       {"os", "system"}}};
  const auto& [module, name] = globals[random() % globals.size()];
  return global(module, name);
}

std::string random_fragment(std::minstd_rand& random) {
  static const std::string kOpcodes = std::string(
                                          "(.N\x88\x89}])t\x85\x86\x87"
                                          "aesubRQ\x81\x93\x94\x8f\x90\x91\x92") +
                                      '0';
  const std::string key = std::to_string(random() % 3);
  switch (random() % 9) {
    case 0:
      return random_integer(random);
    case 1:
      return random_text(random);
    case 2:
      return random_global(random);
    case 3:
      return storage(random() % 2 == 0 ? "FloatStorage" : "ByteStorage", key,
                     static_cast<std::int64_t>(random() % 8));
    case 4:
      return tensor(storage("FloatStorage", key, 6), 0, {2, 3},
                    random() % 2 == 0 ? std::vector<std::int64_t>{3, 1} : std::vector<std::int64_t>{1, 2});
    case 5:
      return global("_io", "BytesIO") + ")\x81(" + global("_codecs", "encode") + random_text(random) +
             text("latin1") + "\x86R" + integer(0) + "Ntb";
    case 6:
      return std::string("q") + static_cast<char>(random() % 4);
    case 7:
      return std::string("h") + static_cast<char>(random() % 4);
    default:
      return std::string(1, kOpcodes[random() % kOpcodes.size()]);
  }
}

}  // namespace

std::string mutate_pickle(const std::string& pickle, std::size_t max_size, std::minstd_rand& random) {
  const std::vector<std::size_t> at = boundaries_of(pickle);
  const std::size_t num_opcodes = at.size() - 1;
  const auto pick = [&](std::size_t count) { return count == 0 ? 0 : random() % count; };
  const std::size_t first = pick(num_opcodes), last = std::min(num_opcodes, first + 1 + pick(6)),
                    target = pick(num_opcodes + 1);
  const std::string taken = pickle.substr(at[first], at[last] - at[first]);
  std::string out = pickle;
  switch (random() % 6) {
    case 0:
      out.resize(std::max(max_size, pickle.size()) + 1);
      out.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(out.data()), pickle.size(),
                                  std::max<std::size_t>(max_size, 1)));
      break;
    case 1:
      out.insert(at[target], random_fragment(random));
      break;
    case 2:
      out.erase(at[first], taken.size());
      break;
    case 3:
      out.insert(at[target], taken);
      break;
    case 4:
      out.replace(at[first], taken.size(), random_fragment(random));
      break;
    default: {
      // One opcode for another of its kind.
      const std::size_t length = num_opcodes == 0 ? 0 : at[first + 1] - at[first];
      const char opcode = length == 0 ? '\0' : out[at[first]];
      if (opcode == 'X' || opcode == '\x8c') {
        out.replace(at[first], length, random_text(random));
      } else if (opcode == 'c') {
        out.replace(at[first], length, random_global(random));
      } else if (opcode == 'K' || opcode == 'M' || opcode == 'J' || opcode == '\x8a') {
        out.replace(at[first], length, random_integer(random));
      } else {
        out.insert(at[target], random_fragment(random));
      }
    }
  }
  return out;
}

}  // namespace focus::formats::fuzz
