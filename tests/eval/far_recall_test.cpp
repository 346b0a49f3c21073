// How often far memory's vote lists the k-mer that a copy continues in, on human chr20 with planted copies,
// and what the vote costs. FOCUS_FAR_TABLE=FILE measures all that scripts/far_recall.py prints.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>

#include "focus/compress/far/scorer.h"
#include "focus/core/random.h"
#include "focus/data/fasta.h"

namespace focus::compress {
namespace {

using Codes = std::vector<uint8_t>;

struct Kind {
  std::string name;
  double substitutions = 0, indels = 0;  // per base; an indel is 1 to 3 bases long
  bool reverse = false;
};

struct Setting {
  int64_t refresh = 16;
  SeedVoteConfig seeds;
};

constexpr int64_t kCopy = 500, kLetIn = 48;
const WindowPlan kPlan({.size = 1024}, 100);

Codes chr20(int64_t record, int64_t length) {
  static const auto file = data::open_fasta(std::string(FOCUS_SOURCE_DIR) + "/data/human_chr20_1-16M.fa.gz");
  const std::string text =
      file->fetch(file->names().front(), 2'000'000 + record * length, 2'000'000 + (record + 1) * length);
  Codes out;
  for (const char letter : text)
    out.push_back(static_cast<uint8_t>(std::string("ACGT").find(static_cast<char>(letter & 0xDF)) & 7));
  for (uint8_t& code : out) code = std::min<uint8_t>(code, 4);
  return out;
}

struct Copy {
  int64_t begin = 0;
  std::vector<int64_t> source;  // where each of its bases comes from
};

// The second half of the letters gets copies of places in the first.
std::vector<Copy> plant(Codes& codes, const Kind& kind, int64_t count, Random& random) {
  const auto half = static_cast<int64_t>(codes.size()) / 2;
  std::vector<Copy> out;
  for (int64_t i = 0; i < count; ++i) {
    Copy copy;
    copy.begin = half + i * half / count + 100;
    int64_t from = random.uniform_integer(100, half - 2 * kCopy) + (kind.reverse ? kCopy : 0);
    const int64_t step = kind.reverse ? -1 : 1;
    for (int64_t u = 0; u < kCopy; ++u, from += step) {
      uint8_t code = codes[static_cast<std::size_t>(from)];
      if (random.uniform() < kind.indels) {
        const int64_t size = random.uniform_integer(1, 3);
        if (random.uniform_integer(2) == 0) {
          from += step * size;  // a deletion
          code = codes[static_cast<std::size_t>(from)];
        } else {
          for (int64_t more = 0; more < size && u + 1 < kCopy; ++more, ++u) {
            codes[static_cast<std::size_t>(copy.begin + u)] = static_cast<uint8_t>(random.uniform_integer(4));
            copy.source.push_back(from);
          }
        }
      }
      if (kind.reverse && code < 4) code = static_cast<uint8_t>(3 - code);
      if (code < 4 && random.uniform() < kind.substitutions)
        code = static_cast<uint8_t>((code + random.uniform_integer(1, 3)) % 4);
      codes[static_cast<std::size_t>(copy.begin + u)] = code;
      copy.source.push_back(from);
    }
    out.push_back(std::move(copy));
  }
  return out;
}

at::Tensor tensor_of(Codes& codes) {
  return at::from_blob(codes.data(), {1, static_cast<int64_t>(codes.size())}, at::kByte);
}

FarTile stretch(int64_t begin, int64_t end) {
  return {begin, end, kPlan.window(kPlan.window_of(begin)).begin};
}

struct Found {
  double share = 0, kmers = 0;
  int64_t queries = 0, stretches = 0;
};

// Of the queries in copies, the share whose next base's origin lies in a k-mer on the list.
Found measure(const Kind& kind, const Setting& setting, int64_t budget, int64_t length, int64_t records) {
  Found out;
  for (int64_t record = 0; record < records; ++record) {
    Random random(static_cast<uint64_t>(record));
    Codes codes = chr20(record, length);
    const auto copies = plant(codes, kind, std::max<int64_t>(8, length / 16384), random);
    const auto scorer = make_seed_vote(setting.seeds, kPlan);
    scorer->append(tensor_of(codes));
    for (const Copy& copy : copies) {
      // Stretches are counted from the sequence's start and end at windows.
      const int64_t last = copy.begin + kCopy - 1;
      for (int64_t begin = copy.begin + kLetIn, end = 0; begin < last; begin = end) {
        end = std::min({begin / setting.refresh * setting.refresh + setting.refresh, last,
                        kPlan.window(kPlan.window_of(begin)).end});
        const int64_t decided =
            std::max(begin / setting.refresh * setting.refresh, kPlan.window(kPlan.window_of(begin)).begin);
        const auto kmers = scorer->choose(stretch(decided, end), budget)[0].kmers;
        ++out.stretches;
        out.kmers += static_cast<double>(kmers.size());
        for (int64_t query = begin; query < end; ++query) {
          const int64_t from = copy.source[static_cast<std::size_t>(query + 1 - copy.begin)];
          const int64_t window = kPlan.window_of(from);
          out.share += std::binary_search(kmers.begin(), kmers.end(),
                                          kPlan.kmers_before(window) + kPlan.kmer_of(from));
          ++out.queries;
        }
      }
    }
  }
  out.share /= static_cast<double>(out.queries);
  out.kmers /= static_cast<double>(out.stretches);
  return out;
}

struct Cost {
  double nanoseconds = 0, bytes = 0, kmers = 0;  // per base, per base, per stretch
};

// Reads natural sequence as a stream of windows.
Cost cost(const Setting& setting, int64_t length) {
  Codes codes = chr20(0, length);
  const auto scorer = make_seed_vote(setting.seeds, kPlan);
  const at::Tensor letters = tensor_of(codes);
  Cost out;
  int64_t stretches = 0;
  const std::clock_t start = std::clock();  // of the processor: other work may share the machine
  for (int64_t base = 0; base < length;) {
    const int64_t window_end = std::min(kPlan.window(kPlan.window_of(base)).end, length);
    scorer->append(letters.narrow(1, base, window_end - base));
    for (; base < window_end; base += setting.refresh, ++stretches) {
      const FarTile tile = stretch(base, std::min(base + setting.refresh, window_end));
      out.kmers += static_cast<double>(scorer->choose(tile, 8)[0].kmers.size());
    }
    base = window_end;
  }
  out.nanoseconds =
      1e9 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / static_cast<double>(length);
  out.bytes = static_cast<double>(scorer->num_bytes()) / static_cast<double>(length);
  out.kmers /= static_cast<double>(stretches);
  return out;
}

TEST(FarRecallTest, ListsTheKmerThatACopyContinuesIn) {
  EXPECT_GE(measure({"exact"}, {}, 2, 16384, 2).share, 0.96);
  EXPECT_GE(measure({"5 %", .05}, {}, 8, 16384, 2).share, 0.99);
  EXPECT_GE(measure({"indels", 0, .02}, {}, 8, 16384, 2).share, 0.99);
  EXPECT_GE(measure({"reverse", 0, 0, true}, {}, 8, 16384, 2).share, 0.99);
  EXPECT_LE(measure({"reverse", 0, 0, true}, {.seeds = {.both_strands = false}}, 2, 16384, 2).share, 0.1);
}

TEST(FarRecallTest, Table) {
  const char* path = std::getenv("FOCUS_FAR_TABLE");
  if (path == nullptr) GTEST_SKIP() << "set FOCUS_FAR_TABLE to a file";
  std::ofstream out(path);
  const std::vector<Kind> kinds = {{"exact"},
                                   {"2 %", .02},
                                   {"5 %", .05},
                                   {"10 %", .1},
                                   {"15 %", .15},
                                   {"indels", 0, .02},
                                   {"indels, 5 %", .05, .02},
                                   {"reverse", 0, 0, true},
                                   {"reverse, 5 %", .05, 0, true}};
  std::vector<Setting> settings;
  for (const int64_t seed : {0, 8, 10, 12, 14}) settings.push_back({.seeds = {.seed = seed}});
  for (const int64_t span : {32, 96, 192}) settings.push_back({.seeds = {.span = span}});
  for (const int64_t refresh : {1, 32, 128}) settings.push_back({.refresh = refresh});
  settings.push_back({.seeds = {.width = 4}});
  settings.push_back({.seeds = {.both_strands = false}});
  for (const auto& [length, records] : {std::pair{16384, 16}, {262144, 8}, {1048576, 2}}) {
    for (const Setting& s : settings) {
      const auto row = [&](const char* what) -> std::ostream& {
        return out << what << '\t' << length << '\t' << s.seeds.seed << '\t' << s.seeds.span << '\t'
                   << s.refresh << '\t' << s.seeds.width << '\t' << s.seeds.both_strands << '\t';
      };
      for (const Kind& kind : kinds) {
        for (const int64_t budget : {1, 2, 4, 8, 16}) {
          const Found f = measure(kind, s, budget, length, records);
          row("found") << kind.name << '\t' << budget << '\t' << f.share << '\t' << f.kmers << '\n';
        }
      }
      Cost c = cost(s, length);
      for (int i = 0; i < 2; ++i) c.nanoseconds = std::min(c.nanoseconds, cost(s, length).nanoseconds);
      row("cost") << c.nanoseconds << '\t' << c.bytes << '\t' << c.kmers << '\n';
    }
  }
  EXPECT_TRUE(out.flush().good()) << path;
}

}  // namespace
}  // namespace focus::compress
