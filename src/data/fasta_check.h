// What must hold of a FASTA file before htslib indexes it: htslib itself drops or accepts much of it in silence.
#pragma once

#include <htslib/bgzf.h>

#include <filesystem>
#include <memory>

namespace focus::data {

struct BgzfClose {
  void operator()(BGZF* file) const { bgzf_close(file); }
};
using BgzfHandle = std::unique_ptr<BGZF, BgzfClose>;

enum class Packing { plain, bgzf };

/// DataError when it cannot be opened.
BgzfHandle open_bgzf(const std::filesystem::path& path);

/// How a file is packed whose first letter is that of FASTA. DataError: missing, not a file, empty, plain gzip, FASTQ, anything else.
Packing check_kind(const std::filesystem::path& path);

/// Walks all headers. DataError: a name that occurs twice or is missing, a record without bases, a damaged file.
void check_records(const std::filesystem::path& path);

}  // namespace focus::data
