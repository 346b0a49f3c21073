#include "focus/model/placement.h"

#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <charconv>
#include <optional>

#include "focus/core/error.h"
#include "focus/ops/device_memory.h"

namespace focus::model {
namespace {

struct Share {
  at::Device device = at::kCPU;
  std::optional<std::pair<int64_t, int64_t>> blocks;  // first, last
};

int64_t block_number(std::string_view digits, const std::string& text) {
  int64_t value = -1;
  const auto end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc() || stop != end || value < 0)
    fail<ConfigError>("device '", text, "': '", digits,
                      "' is no block number; write for example cuda:0=0-15,cuda:1=16-31");
  return value;
}

std::vector<Share> parse(const std::string& text) {
  std::vector<Share> shares;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    begin = end + 1;
    const std::size_t equals = item.find('=');
    Share share;
    try {
      share.device = at::Device(item.substr(0, equals));
    } catch (const c10::Error&) {
      fail<ConfigError>("device '", text, "': '", item.substr(0, equals),
                        "' is no device; use auto, cpu, cuda or cuda:N");
    }
    if (equals != std::string::npos) {
      const std::string range = item.substr(equals + 1);
      const std::size_t dash = range.find('-');
      const int64_t first = block_number(std::string_view(range).substr(0, dash), text);
      const int64_t last =
          dash == std::string::npos ? first : block_number(std::string_view(range).substr(dash + 1), text);
      if (last < first) fail<ConfigError>("device '", text, "': block range ", range, " runs backwards");
      share.blocks = {first, last};
    }
    if (!shares.empty() && shares.front().blocks.has_value() != share.blocks.has_value())
      fail<ConfigError>("device '", text, "': give block ranges for all devices or for none");
    shares.push_back(share);
  }
  return shares;
}

std::vector<at::Device> by_ranges(const std::vector<Share>& shares, int64_t num_blocks,
                                  const std::string& text) {
  std::vector<at::Device> out;
  for (const Share& share : shares) {
    if (share.blocks->first != static_cast<int64_t>(out.size()))
      fail<ConfigError>("device '", text, "': expected a range that starts at block ", out.size(), ", got ",
                        share.blocks->first, "; ranges follow each other and cover every block once");
    for (int64_t i = share.blocks->first; i <= share.blocks->second; ++i) out.push_back(share.device);
  }
  if (static_cast<int64_t>(out.size()) != num_blocks)
    fail<ConfigError>("device '", text, "' places ", out.size(), " blocks, the model has ", num_blocks);
  return out;
}

std::vector<at::Device> by_bytes(const std::vector<Share>& shares, const Backbone& backbone) {
  std::vector<double> bytes;
  double total = 0;
  for (int64_t i = 0; i < backbone.num_blocks(); ++i) {
    double own = 0;
    for (const auto& parameter : backbone.block(i).parameters())
      own += static_cast<double>(parameter.numel() * parameter.element_size());
    bytes.push_back(own);
    total += own;
  }
  std::vector<at::Device> out;
  double done = 0;
  for (const double own : bytes) {
    // A block goes where its middle falls.
    const double share = (done + own / 2) / std::max(total, 1.0) * static_cast<double>(shares.size());
    out.push_back(shares[std::min(static_cast<std::size_t>(share), shares.size() - 1)].device);
    done += own;
  }
  return out;
}

}  // namespace

std::vector<at::Device> parse_placement(const std::string& text, const Backbone& backbone) {
  const auto shares = parse(text);
  return shares.front().blocks ? by_ranges(shares, backbone.num_blocks(), text) : by_bytes(shares, backbone);
}

std::string resolve_devices(const std::string& text) {
  if (text == "auto") return at::hasCUDA() ? "cuda:0" : "cpu";
  for (const Share& share : parse(text)) {
    if (share.device.is_cpu()) continue;
    if (share.device.is_cuda() && !at::hasCUDA())
      fail<DeviceError>("device '", text, "': this build or machine has no CUDA device; use --device cpu");
    if (!ops::has_device_kernels(share.device.type()))
      fail<ConfigError>("device '", text, "': expected auto, cpu or cuda:N, or several of them");
    const auto count = static_cast<int64_t>(c10::impl::VirtualGuardImpl(share.device.type()).deviceCount());
    if (share.device.index() >= count)
      fail<DeviceError>("device '", text, "': ", share.device.str(), " is not there; found ", count,
                        " CUDA device(s)");
  }
  return text;
}

at::Device first_device(const std::string& text) { return parse(text).front().device; }

at::ScalarType parse_dtype(const std::string& text) {
  if (text == "fp32") return at::kFloat;
  if (text == "bf16") return at::kBFloat16;
  fail<ConfigError>("dtype '", text, "': expected fp32 or bf16");
}

}  // namespace focus::model
