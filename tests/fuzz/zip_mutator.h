// Changes a torch.save zip so that it stays one: sizes, offsets and names fit, and what is mutated is the
// pickle or a storage.
#pragma once

#include <cstddef>
#include <cstdint>

namespace focus::formats::fuzz {

/// A mutator as libFuzzer calls it. Bytes that are no zip are changed as they are, or become the pickle of a
/// new one.
std::size_t mutate_torch_zip(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned int seed);

}  // namespace focus::formats::fuzz
