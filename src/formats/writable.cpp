#include "writable.h"

#include <set>
#include <string>
#include <string_view>
#include <system_error>

#include "focus/core/error.h"
#include "focus/core/units.h"
#include "mapped_tensor_file.h"
#include "printable.h"

namespace focus::formats {

void check_writable(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                    const std::vector<OpaqueEntry>& opaque) {
  const auto refuse = [&](const std::string& name, const std::string& why) {
    fail<DataError>("cannot write '", path.string(), "': entry ", printable(name), " ", why);
  };
  std::set<std::string_view> names;
  const auto check_name = [&](const std::string& name) {
    if (name.empty() || !is_utf8(name)) refuse(name, "needs a name in UTF-8");
    if (name.size() > 0xffff)
      refuse(name, concat("has a name of ", name.size(), " bytes, expected at most 65535"));
    if (!names.insert(name).second) refuse(name, "occurs twice; every entry needs a name of its own");
  };
  std::int64_t total = 0;
  for (const TensorView& tensor : tensors) {
    check_name(tensor.name);
    const std::optional<std::int64_t> num_bytes = checked_num_bytes(tensor.shape, tensor.dtype);
    if (!num_bytes || __builtin_add_overflow(total, *num_bytes, &total))
      refuse(tensor.name, concat("has the impossible shape ", shape_text(tensor.shape)));
    if (*num_bytes > 0 && tensor.data == nullptr)
      refuse(tensor.name, concat("of shape ", shape_text(tensor.shape), " has no data"));
  }
  for (const OpaqueEntry& entry : opaque) check_name(entry.name);
}

void check_room(const std::filesystem::path& path, std::int64_t num_bytes) {
  std::error_code error;
  const std::filesystem::path folder =
      path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  // A device or pipe has no room of its own, and some network file systems report none at all.
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) return;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error || space.capacity == 0) return;
  if (static_cast<std::uintmax_t>(num_bytes) > space.available) {
    fail<DataError>("cannot write '", path.string(), "': it needs ", format_bytes(num_bytes),
                    ", the disk has ", format_bytes(static_cast<std::int64_t>(space.available)),
                    " free; free some space or choose another folder");
  }
}

std::int64_t num_bytes_of(const std::vector<TensorView>& tensors, const std::vector<OpaqueEntry>& opaque) {
  std::int64_t total = 0;
  for (const TensorView& tensor : tensors) total += tensor.num_bytes();
  for (const OpaqueEntry& entry : opaque) total += static_cast<std::int64_t>(entry.content.size());
  return total;
}

std::vector<TensorView> with_opaque_as_tensors(const std::filesystem::path& path,
                                               const std::vector<TensorView>& tensors,
                                               const std::vector<OpaqueEntry>& opaque) {
  std::vector<TensorView> all = tensors;
  for (const OpaqueEntry& entry : opaque) {
    if (entry.kind == OpaqueEntry::Kind::none || entry.kind == OpaqueEntry::Kind::other) {
      fail<DataError>(
          "cannot write '", path.string(), "': entry ", printable(entry.name),
          " is neither a tensor nor bytes, and safetensors hold nothing else; leave it out or write a .pt");
    }
    if (!is_extra_state(entry.name)) {
      fail<DataError>("cannot write '", path.string(), "': entry ", printable(entry.name),
                      " is no tensor, and only those called ..._extra_state can be told from one in "
                      "safetensors; leave it out or write a .pt");
    }
    all.push_back(
        {entry.name, DType::uint8, {static_cast<std::int64_t>(entry.content.size())}, entry.content.data()});
  }
  return all;
}

}  // namespace focus::formats
