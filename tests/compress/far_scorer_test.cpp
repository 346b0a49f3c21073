#include "focus/compress/far/scorer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "focus/core/error.h"
#include "focus/core/random.h"
#include "seed_index.h"

namespace focus::compress {
namespace {

using at::Tensor;
using Codes = std::vector<uint8_t>;

Codes reverse_complement(const Codes& codes) {
  Codes out(codes.rbegin(), codes.rend());
  for (uint8_t& c : out) c = c < 4 ? static_cast<uint8_t>(3 - c) : c;
  return out;
}

// Random letters with what makes an index wrong: copies, exact and with mistakes, on both strands, tandem
// repeats of many periods, and letters that are no base.
Codes drawn_letters(Random& random, int64_t size) {
  Codes out;
  const auto letter = [&] { return static_cast<uint8_t>(random.uniform_integer(4)); };
  while (static_cast<int64_t>(out.size()) < size) {
    const int64_t kind = out.empty() ? 0 : random.uniform_integer(7), length = random.uniform_integer(1, 120);
    if (kind <= 1) {
      for (int64_t i = 0; i < length; ++i) out.push_back(letter());
    } else if (kind == 2) {
      const int64_t period = random.uniform_integer(1, 9);
      for (int64_t i = 0; i < length; ++i)
        out.push_back(i < period || out.size() < 9 ? letter()
                                                   : out[out.size() - static_cast<std::size_t>(period)]);
    } else if (kind == 3) {
      out.insert(out.end(), static_cast<std::size_t>(random.uniform_integer(1, 4)), 4);
    } else {
      const auto from = random.uniform_integer(static_cast<int64_t>(out.size()));
      Codes copy(out.begin() + from, out.begin() + std::min(from + length, static_cast<int64_t>(out.size())));
      if (kind == 4) copy = reverse_complement(copy);
      if (kind == 5) {
        for (uint8_t& c : copy) c = random.uniform_integer(10) == 0 ? letter() : c;
      }
      out.insert(out.end(), copy.begin(), copy.end());
    }
  }
  out.resize(static_cast<std::size_t>(size));
  return out;
}

Tensor tensor_of(const std::vector<Codes>& rows) {
  std::vector<Tensor> out;
  for (const Codes& row : rows)
    out.push_back(
        at::from_blob(const_cast<uint8_t*>(row.data()), {static_cast<int64_t>(row.size())}, at::kByte)
            .clone());
  return at::stack(out);
}

// A seed as letters; empty where it votes for nothing.
Codes seed_before(const Codes& codes, int64_t end, int64_t length) {
  if (end < length) return {};
  Codes out(codes.begin() + (end - length), codes.begin() + end);
  if (*std::max_element(out.begin(), out.end()) > 3) return {};
  for (int64_t period = 1; period <= 3 && period < length; ++period) {
    if (std::equal(out.begin() + period, out.end(), out.begin())) return {};
  }
  return out;
}

std::vector<int32_t> occurrences(const Codes& codes, const Codes& seed, int64_t past_end, int64_t most) {
  std::vector<int32_t> out;
  const auto length = static_cast<int64_t>(seed.size());
  for (int64_t end = past_end; end >= length && static_cast<int64_t>(out.size()) < most; --end) {
    if (std::equal(seed.begin(), seed.end(), codes.begin() + (end - length)))
      out.push_back(static_cast<int32_t>(end));
  }
  return out;
}

// How many seeds in a row match: one, and what goes on of the match before `begin` and before `at`, or on the
// other strand from `at` on.
int64_t run_of(const Codes& codes, int64_t begin, int64_t at, bool reverse) {
  constexpr int64_t kMost = 24;
  int64_t more = 0;
  for (; more < kMost; ++more) {
    const int64_t a = begin - 1 - more, b = reverse ? at + more : at - 1 - more;
    if (a < 0 || b < 0 || b >= begin) break;
    const int here = codes[static_cast<std::size_t>(a)], there = codes[static_cast<std::size_t>(b)];
    if (here > 3 || there > 3 || here != (reverse ? 3 - there : there)) break;
  }
  return 1 + more;
}

// The same choice, counted out base by base.
FarChoice counted_choice(const Codes& codes, const FarTile& tile, int64_t budget,
                         const SeedVoteConfig& config, const WindowPlan& plan) {
  const int64_t known = tile.begin + 1;
  const int64_t length = config.seed > 0 ? config.seed : SeedIndex::length_for(tile.past_end);
  constexpr int64_t kRunVotes = 4;
  std::map<int64_t, int64_t> votes, runs;
  for (int64_t end = std::max<int64_t>(known - config.span + 1, length); end <= known; ++end) {
    const Codes seed = seed_before(codes, end, length);
    if (seed.empty()) continue;
    std::set<int64_t> voted;
    const auto vote = [&](int64_t place) {
      for (int64_t p = place - config.width; p <= place + config.width; ++p) {
        if (p < 0 || p >= tile.past_end || plan.kmer_of(p) < 0) continue;
        const int64_t window = plan.window_of(p);
        if (plan.kmer(window, plan.kmer_of(p)).end <= tile.past_end)
          voted.insert(plan.kmers_before(window) + plan.kmer_of(p));
      }
    };
    for (int64_t query = tile.begin; query < tile.end; ++query) {
      // Counted from the seed's end, query's next base stands `ahead` further right.
      const int64_t ahead = query + 1 - end;
      for (const int32_t hit : occurrences(codes, seed, tile.past_end, config.most_hits)) vote(hit + ahead);
      if (!config.both_strands) continue;
      for (const int32_t hit : occurrences(codes, reverse_complement(seed), tile.past_end, config.most_hits))
        vote(hit - length - 1 - ahead);
    }
    for (const int64_t kmer : voted) ++votes[kmer];
    if (end < known) continue;
    const auto add = [&](const Codes& word, bool reverse) {
      for (const int32_t hit : occurrences(codes, word, tile.past_end, config.most_hits)) {
        voted.clear();
        for (int64_t query = tile.begin; query < tile.end; ++query)
          vote(reverse ? hit - length - 1 - (query - tile.begin) : hit + query - tile.begin);
        const int64_t run = run_of(codes, end - length, reverse ? hit : hit - length, reverse);
        for (const int64_t kmer : voted) runs[kmer] += kRunVotes * run;
      }
    };
    add(seed, false);
    if (config.both_strands) add(reverse_complement(seed), true);
  }
  std::vector<std::pair<int64_t, int64_t>> ranked;
  for (const auto& [kmer, count] : votes) {
    if (count >= config.min_votes) ranked.emplace_back(count + runs[kmer], kmer);
  }
  std::sort(ranked.rbegin(), ranked.rend());
  if (static_cast<int64_t>(ranked.size()) > budget) ranked.resize(static_cast<std::size_t>(budget));
  FarChoice out;
  for (const auto& [count, kmer] : ranked) {
    out.kmers.push_back(kmer);
    out.best_votes = std::max(out.best_votes, static_cast<int32_t>(votes[kmer]));
  }
  std::sort(out.kmers.begin(), out.kmers.end());
  return out;
}

void expect_equal(const FarChoice& a, const FarChoice& b, const std::string& where) {
  EXPECT_EQ(a.kmers, b.kmers) << where;
  EXPECT_EQ(a.best_votes, b.best_votes) << where;
}

TEST(SeedIndexTest, FindsWhatSearchingEveryPlaceFinds) {
  Random random(1);
  for (const int64_t length : {0, 1, 4, 9, 13, 31}) {
    const Codes codes = drawn_letters(random, 3000);
    SeedIndex index(length);
    index.append(codes.data(), 3000);
    for (const int64_t past_end : {0, 1, 30, 500, 1024, 2047, 2999, 400}) {  // back again, too
      index.index(past_end);
      if (past_end == 0) continue;
      EXPECT_EQ(index.length(), length > 0 ? length : SeedIndex::length_for(past_end));
      for (int64_t end = 1; end <= 3000; end += 7) {
        const Codes expected = seed_before(codes, end, index.length());
        const auto seed = index.seed(end);
        ASSERT_EQ(seed.has_value(), !expected.empty()) << "seed before " << end;
        if (!seed) continue;
        std::vector<int32_t> found, reverse;
        index.find(*seed, 5, found);
        index.find(index.reverse_complement(*seed), 1000, reverse);
        EXPECT_EQ(found, occurrences(codes, expected, past_end, 5));
        EXPECT_EQ(reverse, occurrences(codes, reverse_complement(expected), past_end, 1000));
      }
    }
  }
}

TEST(SeedIndexTest, TakesLongerSeedsAsThePastGrows) {
  EXPECT_EQ(SeedIndex::length_for(1024), 8);
  EXPECT_EQ(SeedIndex::length_for(16384), 10);
  EXPECT_EQ(SeedIndex::length_for(16385), 11);
  EXPECT_EQ(SeedIndex::length_for(1 << 20), 13);
}

TEST(SeedIndexTest, TakesLessThanSixBytesPerBase) {
  Random random(2);
  const Codes codes = drawn_letters(random, 300'000);
  SeedIndex index;
  int64_t size = 0;
  while (size < 300'000) {
    index.append(codes.data() + size, 1000);
    size += 1000;
    index.index(size);
    if (size >= 10'000) {
      ASSERT_LE(index.num_bytes(), 6 * size) << size;
    }
  }
}

TEST(SeedIndexTest, RefusesMoreBasesThanItCanNumber) {
  SeedIndex index;
  EXPECT_THROW(index.append(nullptr, SeedIndex::kMostBases + 1), DataError);
}

struct Case {
  WindowPlan plan;
  SeedVoteConfig config;
};

Case drawn_case(Random& random) {
  const auto pick = [&](std::vector<int64_t> of) {
    return of[static_cast<std::size_t>(random.uniform_integer(static_cast<int64_t>(of.size())))];
  };
  WindowConfig window;
  window.size = pick({64, 100, 256});
  window.remainder = static_cast<Remainder>(random.uniform_integer(3));
  SeedVoteConfig config;
  config.seed = pick({0, 0, 4, 8});
  config.span = pick({1, 16, 48, 200});
  config.min_votes = pick({1, 1, 3});
  config.width = pick({0, 0, 3, 40});
  config.most_hits = pick({1, 4, 64});
  config.both_strands = random.uniform_integer(2) == 0;
  return {WindowPlan(window, pick({1, 7, 25, 64})), config};
}

FarTile drawn_tile(Random& random, const WindowPlan& plan, int64_t size) {
  FarTile tile;
  tile.begin = random.uniform_integer(size);
  tile.end = tile.begin + random.uniform_integer(1, 128);
  tile.past_end = plan.window(plan.window_of(tile.begin)).begin;
  if (random.uniform_integer(3) == 0) tile.past_end = random.uniform_integer(tile.begin + 1);
  return tile;
}

TEST(SeedVoteTest, ChoosesWhatCountingBaseByBaseChooses) {
  Random random(3);
  int64_t some = 0;
  for (int draw = 0; draw < 30; ++draw) {
    const Case c = drawn_case(random);
    const std::vector<Codes> rows = {drawn_letters(random, 1200), drawn_letters(random, 1200)};
    const auto scorer = make_seed_vote(c.config, c.plan);
    scorer->append(tensor_of(rows));
    for (int i = 0; i < 8; ++i) {  // in any order
      const FarTile tile = drawn_tile(random, c.plan, 1200);
      const int64_t budget = random.uniform_integer(0, 9);
      const auto choices = scorer->choose(tile, budget);
      ASSERT_EQ(choices.size(), 2);
      for (std::size_t b = 0; b < 2; ++b) {
        const FarChoice expected = counted_choice(rows[b], tile, budget, c.config, c.plan);
        expect_equal(choices[b], expected, concat("draw ", draw, ", query ", tile.begin, ", row ", b));
        some += !expected.kmers.empty();
      }
    }
  }
  EXPECT_GT(some, 100);
}

TEST(SeedVoteTest, IsTheSameHoweverTheLettersCome) {
  Random random(4);
  for (int draw = 0; draw < 20; ++draw) {
    const Case c = drawn_case(random);
    const Codes codes = drawn_letters(random, 1500), other = drawn_letters(random, 1500);
    const auto whole = make_seed_vote(c.config, c.plan);
    whole->append(tensor_of({codes}));
    auto stream = make_seed_vote(c.config, c.plan);
    int64_t size = 0;
    while (size < 1500) {
      const int64_t count = std::min<int64_t>(random.uniform_integer(1, 90), 1500 - size);
      const auto piece = [&](const Codes& of) {
        return tensor_of({Codes(of.begin() + size, of.begin() + size + count)});
      };
      const auto tile_of = [&](int64_t query) {
        return FarTile{query, query + 16, c.plan.window(c.plan.window_of(query)).begin};
      };
      // A copy that goes another way, a snapshot to which the stream goes back, and a saved state.
      if (size > 0 && random.uniform_integer(4) == 0) {
        const auto fork = stream->clone();
        fork->append(piece(other));
        (void)fork->choose(tile_of(size + count - 1), 4);
        auto back = stream->snapshot();
        stream->append(piece(other));
        (void)stream->choose(tile_of(size + count - 1), 4);
        stream = std::move(back);
        cache::TensorMap saved;
        stream->save(saved);
        stream = make_seed_vote(c.config, c.plan);
        stream->load(saved, at::kCPU);
      }
      stream->append(piece(codes));
      for (int64_t query = size; query < size + count; query += 11)
        expect_equal(stream->choose(tile_of(query), 4)[0], whole->choose(tile_of(query), 4)[0],
                     concat("draw ", draw, ", query ", query));
      size += count;
    }
  }
}

TEST(SeedVoteTest, DoesNotLookAhead) {
  Random random(5);
  const Case c = {WindowPlan({.size = 256}, 25), {}};
  const Codes codes = drawn_letters(random, 2000);
  Codes changed = codes;
  for (std::size_t i = 1701; i < 2000; ++i) changed[i] = static_cast<uint8_t>((changed[i] + 1) % 5);
  const auto a = make_seed_vote(c.config, c.plan), b = make_seed_vote(c.config, c.plan);
  a->append(tensor_of({codes}));
  b->append(tensor_of({changed}));
  expect_equal(a->choose({1700, 1800, 1536}, 8)[0], b->choose({1700, 1800, 1536}, 8)[0], "query 1700");
}

TEST(SeedVoteTest, LeavesLowComplexityAndAllButTheNewestOccurrencesOut) {
  const WindowPlan plan({.size = 1000}, 100);
  Random random(6);
  Codes unit(50), codes;
  for (uint8_t& c : unit) c = static_cast<uint8_t>(random.uniform_integer(4));
  for (int i = 0; i < 80; ++i) codes.insert(codes.end(), unit.begin(), unit.end());  // 40 k-mers of 100
  SeedVoteConfig config;
  config.most_hits = 6;
  auto scorer = make_seed_vote(config, plan);
  scorer->append(tensor_of({codes}));
  // Six copies of 50 bases before base 3,000.
  const FarChoice newest = scorer->choose({3500, 3501, 3000}, 100)[0];
  EXPECT_LE(newest.kmers.size(), 4);
  EXPECT_EQ(newest.kmers.back(), 29);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i % 3);
  scorer = make_seed_vote(config, plan);
  scorer->append(tensor_of({codes}));
  EXPECT_TRUE(scorer->choose({3500, 3501, 3000}, 100)[0].kmers.empty());
}

TEST(SeedVoteTest, RefusesQueriesWithoutLettersAndOtherBatches) {
  const auto scorer = make_seed_vote({}, WindowPlan({}, 100));
  scorer->append(at::zeros({2, 10}, at::kByte));
  EXPECT_THROW(scorer->choose({10, 11, 0}, 4), InternalError);
  EXPECT_THROW(scorer->choose({5, 6, 6}, 4), InternalError);
  EXPECT_THROW(scorer->append(at::zeros({1, 10}, at::kByte)), InternalError);
  EXPECT_THROW(scorer->append(at::zeros({2, 10}, at::kLong)), InternalError);
}

// Keys that a k-mer's queries find: queries are noise around a key of one of its bases.
struct KeyCase {
  WindowPlan plan{{.size = 64, .remainder = Remainder::drop}, 10};  // k-mers at 0, 10 .. 50, 64, ..
  Tensor k = at::randn({2, 2, 640, 16});
  Entries none;
  Tensor queries_at(int64_t base, double noise) const {
    // Four query heads, two to a key head; three queries.
    const Tensor of_heads = k.narrow(2, base, 1).repeat_interleave(2, 1);
    return of_heads * 4 + noise * at::randn({2, 4, 3, 16});
  }
  std::unique_ptr<FarScorer> closed(FarScore score, int64_t rank = 8) const {
    auto scorer = make_far_scorer(score, plan, {}, rank);
    for (int64_t base = 3; base < 640; base += 16) scorer->see(queries_at(base, 0.3), 2);
    for (int64_t base = 0; base < 640; base += 64) scorer->close(k.narrow(2, base, 60), none);
    EXPECT_EQ(scorer->closed(), 60);
    return scorer;
  }
};

TEST(KeyScorerTest, OracleTakesTheKmersWithMostAttention) {
  at::manual_seed(1);
  const KeyCase c;
  const auto scorer = c.closed(FarScore::oracle);
  const Tensor q = at::randn({2, 4, 5, 16}) * 3;
  for (const int64_t past_end : {0, 5, 64, 333, 640}) {
    const auto choices = scorer->choose({640, 645, past_end}, 4, q);
    ASSERT_EQ(choices.size(), 2);
    for (int64_t b = 0; b < 2; ++b) {
      std::vector<std::pair<double, int64_t>> ranked;
      const int64_t count = c.plan.kmers_completed(past_end);
      std::vector<double> mass(static_cast<std::size_t>(count));
      for (int64_t h = 0; count > 0 && h < 4; ++h) {
        const Tensor e = at::matmul(q[b][h], c.k[b][h / 2].narrow(0, 0, past_end).t()).div(4).exp();
        const auto of = [&](int64_t kmer) {
          const int64_t window = c.plan.window_of_kmer(kmer);
          const Span bases = c.plan.kmer(window, kmer - c.plan.kmers_before(window));
          return e.narrow(1, bases.begin, bases.size()).sum(1);
        };
        Tensor all = at::zeros({5});
        for (int64_t kmer = 0; kmer < count; ++kmer) all += of(kmer);
        for (int64_t kmer = 0; kmer < count; ++kmer)
          mass[static_cast<std::size_t>(kmer)] += (of(kmer) / all).sum().item<double>();
      }
      for (int64_t kmer = 0; kmer < count; ++kmer)
        ranked.emplace_back(mass[static_cast<std::size_t>(kmer)], kmer);
      std::sort(ranked.rbegin(), ranked.rend());
      std::vector<int64_t> expected;
      for (int64_t j = 0; j < std::min<int64_t>(4, count); ++j)
        expected.push_back(ranked[static_cast<std::size_t>(j)].second);
      std::sort(expected.begin(), expected.end());
      EXPECT_EQ(choices[static_cast<std::size_t>(b)].kmers, expected) << "past " << past_end << ", row " << b;
    }
  }
}

TEST(KeyScorerTest, RoundedKeysFindWhatTheKeysFind) {
  at::manual_seed(2);
  const KeyCase c;
  // Bytes per base and head: the codes and a step in fp16; a sketch also keeps its directions.
  const std::vector<std::pair<FarScore, int64_t>> scores = {
      {FarScore::oracle, 64}, {FarScore::bits1, 2 + 2}, {FarScore::bits2, 4 + 2}, {FarScore::sketch, 4 + 2}};
  for (const auto& [score, bytes] : scores) {
    const auto scorer = c.closed(score);
    EXPECT_TRUE(reads_keys(score));
    EXPECT_EQ(scorer->num_bytes(),
              4 * 600 * bytes + (score == FarScore::sketch ? 4 * (2 * 16 * 8 + 16) * 4 : 0));
    const auto fork = scorer->clone(), loaded = make_far_scorer(score, c.plan);
    cache::TensorMap saved;
    scorer->save(saved);
    loaded->load(saved, at::kCPU);
    scorer->close(c.k.narrow(2, 0, 60), {});  // the others stay as they were
    int64_t found = 0;
    for (int64_t base = 3; base < 640; base += 64) {
      const Tensor q = c.queries_at(base, 0.3);
      const FarTile tile = {640, 643, 640};
      const auto chosen = scorer->choose(tile, 2, q);
      EXPECT_EQ(chosen, fork->choose(tile, 2, q));
      EXPECT_EQ(chosen, loaded->choose(tile, 2, q));
      for (const FarChoice& row : chosen)
        found += std::ranges::count(row.kmers, c.plan.kmers_completed(base - 3));
    }
    EXPECT_GE(found, score == FarScore::oracle ? 20 : 12)  // by chance: 0.7
        << static_cast<int>(score);
  }
}

TEST(KeyScorerTest, ASketchHoldsWhatQueriesAskForAndNoMore) {
  at::manual_seed(4);
  const KeyCase c;
  // Most of the keys' variance, and all of their mean, lies where no query looks.
  Tensor k = c.k.clone();
  k.narrow(3, 4, 12).mul_(3).add_(100);
  const auto sketch = make_far_scorer(FarScore::sketch, c.plan, {}, 4),
             blind = make_far_scorer(FarScore::sketch, c.plan, {}, 4),
             oracle = make_far_scorer(FarScore::oracle, c.plan);
  const auto queries = [] {
    Tensor q = at::randn({2, 4, 3, 16}) * 6;
    q.narrow(3, 4, 12).mul_(1e-4);
    return q;
  };
  for (int64_t i = 0; i < 10; ++i) {
    sketch->see(queries(), 2);
    blind->see(at::randn({2, 4, 3, 16}), 2);  // looks everywhere, so the keys alone decide
  }
  EXPECT_EQ(sketch->num_bytes(), 4 * 16 * 16 * 8);
  for (int64_t base = 0; base < 640; base += 64) {
    sketch->close(k.narrow(2, base, 60), c.none);
    blind->close(k.narrow(2, base, 60), c.none);
    oracle->close(k.narrow(2, base, 60), c.none);
  }
  int64_t same = 0, same_blind = 0;
  for (int64_t i = 0; i < 20; ++i) {
    const Tensor q = queries();
    const auto chosen_by = [&](FarScorer& scorer) { return scorer.choose({640, 643, 640}, 4, q); };
    const auto expected = chosen_by(*oracle), got = chosen_by(*sketch), guessed = chosen_by(*blind);
    for (std::size_t b = 0; b < 2; ++b) {
      const auto count = [&](const FarChoice& choice) {
        return std::ranges::count_if(choice.kmers, [&](int64_t kmer) {
          return std::ranges::find(expected[b].kmers, kmer) != expected[b].kmers.end();
        });
      };
      same += count(got[b]);
      same_blind += count(guessed[b]);
    }
  }
  // Of 160, of which chance finds 11.
  EXPECT_GE(same, 110);
  EXPECT_LE(same_blind, 30);
  EXPECT_THROW(make_far_scorer(FarScore::sketch, c.plan, {}, 4)->close(k.narrow(2, 0, 60), c.none),
               InternalError);
}

TEST(KeyScorerTest, FittedTakesTheLargestEntries) {
  at::manual_seed(3);
  const WindowPlan plan({.size = 64}, 16);
  const Tensor k = at::randn({1, 2, 8, 16});
  const Entries entries{k, k, at::randn({1, 2, 8}), {}};
  const auto scorer = make_far_scorer(FarScore::fitted, plan);
  scorer->close({}, entries.slice(0, 4));
  scorer->close({}, entries.slice(4, 8));
  const Tensor q = at::randn({1, 2, 1, 16});
  const Tensor weights =
      ((at::matmul(entries.k, q.transpose(2, 3)).squeeze(3) / 4) + entries.beta).softmax(2).sum(1)[0];
  const Tensor expected = std::get<0>(std::get<1>(weights.topk(3)).sort());
  const auto chosen = scorer->choose({128, 129, 128}, 3, q)[0].kmers;
  EXPECT_TRUE(at::equal(at::tensor(chosen), expected));
  // Of the four that have closed before base 64, whatever the others weigh.
  EXPECT_LT(scorer->choose({100, 101, 64}, 1, q)[0].kmers[0], 4);
}

TEST(RandomScorerTest, DrawsTheSameDistinctKmersOfThePastEachTime) {
  const WindowPlan plan({.size = 1000}, 100);
  const auto scorer = make_far_scorer(FarScore::random, plan);
  scorer->append(at::zeros({3, 5000}, at::kByte));
  const auto a = scorer->choose({4100, 4200, 4000}, 8), b = scorer->clone()->choose({4100, 4200, 4000}, 8);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, scorer->choose({4101, 4200, 4000}, 8));
  EXPECT_NE(a[0], a[1]);
  for (const FarChoice& row : a) {
    EXPECT_EQ(std::set<int64_t>(row.kmers.begin(), row.kmers.end()).size(), 8);
    EXPECT_TRUE(std::ranges::is_sorted(row.kmers));
    EXPECT_TRUE(row.kmers.front() >= 0 && row.kmers.back() < 40);
  }
  EXPECT_EQ(scorer->choose({1000, 1001, 1000}, 16)[0].kmers.size(), 10);
}

}  // namespace
}  // namespace focus::compress
