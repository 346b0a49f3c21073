// Changes a pickle opcode by opcode, so that most results are read far beyond their first change.
#pragma once

#include <random>
#include <string>

namespace focus::formats::fuzz {

std::string mutate_pickle(const std::string& pickle, std::size_t max_size, std::minstd_rand& random);

}  // namespace focus::formats::fuzz
