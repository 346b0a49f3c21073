#include "run/event_log.h"

#include <array>
#include <chrono>
#include <cmath>
#include <cstring>

#include "focus/core/error.h"
#include "focus/core/file.h"

namespace focus::train {
namespace {

namespace fs = std::filesystem;

// Fields of tensorflow.Event, Summary and Summary.Value, each as the protocol buffer key (number << 3 | wire
// type).
constexpr char kWallTime = 0x09, kStep = 0x10, kFileVersion = 0x1a, kSummary = 0x2a, kValue = 0x0a,
               kTag = 0x0a, kSimpleValue = 0x15;
constexpr std::size_t kFrameHead = 12, kFrameTail = 4;

// x86 and every other platform that focus runs on store the low byte first, as the file does.
template <class T>
std::string raw(const T& value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}
template <class T>
T from_raw(std::string_view bytes) {
  T value{};
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

std::string field(char key, std::string_view bytes) {
  return key + varint(bytes.size()) + std::string(bytes);
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

std::string frame(const std::string& message) {
  const std::string length = raw(static_cast<uint64_t>(message.size()));
  return length + raw(masked_crc(length)) + message + raw(masked_crc(message));
}

std::string event_head() {
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return kWallTime + raw(now);
}

/// The step of an event that this file wrote: wall time first, then the step, which the version record lacks.
int64_t step_of(std::string_view message) {
  constexpr std::size_t kAfterTime = 1 + sizeof(double);
  if (message.size() <= kAfterTime || message[kAfterTime] != kStep) return 0;
  uint64_t step = 0;
  int shift = 0;
  for (std::size_t i = kAfterTime + 1; i < message.size() && shift < 64; ++i, shift += 7) {
    step |= static_cast<uint64_t>(message[i] & 0x7f) << shift;
    if ((message[i] & 0x80) == 0) break;
  }
  return static_cast<int64_t>(step);
}

/// The whole frames up to a step; a torn or damaged one ends the file, as it does for TensorBoard.
std::string frames_up_to(const std::string& text, int64_t last_step) {
  const std::string_view bytes = text;
  std::string kept;
  for (std::size_t begin = 0; begin + kFrameHead + kFrameTail <= bytes.size();) {
    const auto size = from_raw<uint64_t>(bytes.substr(begin, 8));
    if (from_raw<uint32_t>(bytes.substr(begin + 8, 4)) != masked_crc(bytes.substr(begin, 8))) break;
    if (size > bytes.size() - begin - kFrameHead - kFrameTail) break;
    const std::string_view message = bytes.substr(begin + kFrameHead, size);
    if (from_raw<uint32_t>(bytes.substr(begin + kFrameHead + size, 4)) != masked_crc(message)) break;
    const std::size_t whole = kFrameHead + size + kFrameTail;
    if (step_of(message) <= last_step) kept += bytes.substr(begin, whole);
    begin += whole;
  }
  return kept;
}

fs::path existing_file(const fs::path& folder) {
  fs::path found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(EventLog::kPrefix) && name.find(".tmp-") == std::string::npos &&
        (found.empty() || entry->path() < found))
      found = entry->path();
  }
  return found;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> made{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78U : 0U);
      made[i] = value;
    }
    return made;
  }();
  uint32_t crc = 0xffffffffU;
  for (const char byte : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return ~crc;
}

EventLog::EventLog(const fs::path& folder, std::optional<int64_t> resumed_step) {
  fs::path path = existing_file(folder);
  const bool found = !path.empty();
  if (!found)
    path = folder /
           concat(kPrefix, std::chrono::system_clock::to_time_t(std::chrono::system_clock::now()), ".focus");
  const std::string first = frame(event_head() + field(kFileVersion, "brain.Event:2"));
  const std::string kept = found && resumed_step ? frames_up_to(read_file(path), *resumed_step) : "";
  file_ = std::make_unique<RecordFile>(path, kept.empty() ? first : kept);
}

void EventLog::write(int64_t step, const MetricFields& fields) {
  std::string summary;
  for (const auto& [name, value] : fields) {
    const double* real = std::get_if<double>(&value);
    const int64_t* whole = std::get_if<int64_t>(&value);
    if (real == nullptr && whole == nullptr) continue;
    const double number = real != nullptr ? *real : static_cast<double>(*whole);
    if (std::isfinite(number))
      summary += field(kValue, field(kTag, name) + kSimpleValue + raw(static_cast<float>(number)));
  }
  file_->append(frame(event_head() + kStep + varint(static_cast<uint64_t>(step)) + field(kSummary, summary)));
}

}  // namespace focus::train
