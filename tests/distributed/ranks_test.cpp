#include "focus/distributed/ranks.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <exception>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "focus/core/error.h"

namespace focus::distributed {
namespace {

constexpr int kSize = 3;

int64_t free_port() {
  const int probe = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool ok = ::bind(probe, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                  ::getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(probe);
  if (!ok) throw std::runtime_error("no free port");
  return ntohs(address.sin_port);
}

/// Runs `body` as each of three ranks, threads of this process, and returns what each threw.
std::array<std::exception_ptr, kSize> as_ranks(const std::function<void(Ranks&)>& body) {
  const int64_t port = free_port();
  std::array<std::exception_ptr, kSize> thrown;
  std::array<std::thread, kSize> threads;
  for (std::size_t rank = 0; rank < kSize; ++rank) {
    threads[rank] = std::thread([&, rank] {
      try {
        RankEnvironment environment;
        environment.rank = environment.local_rank = static_cast<int64_t>(rank);
        environment.size = environment.local_size = kSize;
        environment.launcher = "test";
        environment.address = "127.0.0.1";
        environment.port = port;
        const auto ranks = join_ranks(environment, at::kCPU,
                                      {.meet_seconds = 60, .answer_seconds = 60, .advice = "Try again"});
        body(*ranks);
      } catch (...) {
        thrown[rank] = std::current_exception();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return thrown;
}

std::string message_of(const std::exception_ptr& error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  }
  return "nothing thrown";
}

void expect_success(const std::array<std::exception_ptr, kSize>& thrown) {
  for (const auto& error : thrown) EXPECT_EQ(error, nullptr) << message_of(error);
}

class SeveralRanks : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const auto& error : as_ranks([](Ranks&) {})) {
      if (message_of(error).find("cannot connect") != std::string::npos) GTEST_SKIP() << "built without Gloo";
    }
  }
};

TEST(OneRank, ChangesNothing) {
  const auto ranks = join_ranks({}, at::kCPU, {});
  EXPECT_TRUE(ranks->is_first());
  EXPECT_EQ(ranks->size(), 1);
  EXPECT_EQ(ranks->sum({1.5, 2.0}), (std::vector<double>{1.5, 2.0}));
  EXPECT_EQ(ranks->largest({-1.5}), std::vector<double>{-1.5});
  EXPECT_EQ(ranks->from_first(std::vector<int64_t>{7}), std::vector<int64_t>{7});
  EXPECT_NO_THROW(require_agreement(*ranks, {{"settings", "a"}}));
}

TEST(Join, AMissingRankIsAnErrorWithinTheTimeout) {
  RankEnvironment alone;
  alone.rank = 1;
  alone.size = 2;
  alone.address = "127.0.0.1";
  alone.port = 1;  // nobody listens there
  EXPECT_THROW(join_ranks(alone, at::kCPU, {.meet_seconds = 1, .answer_seconds = 1, .advice = {}}),
               DeviceError);
}

/// A listener on a free port of this machine, which does not speak the ranks' language.
class Stranger {
 public:
  explicit Stranger(const std::string& greeting)
      : socket_(::socket(AF_INET, SOCK_STREAM, 0)), port_(free_port()) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port_));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(socket_, 8) != 0)
      throw std::runtime_error("cannot listen");
    if (greeting.empty()) return;  // connections wait in the queue, unanswered
    answer_ = std::thread([this, greeting] {
      for (int peer = ::accept(socket_, nullptr, nullptr); peer >= 0;
           peer = ::accept(socket_, nullptr, nullptr)) {
        [[maybe_unused]] const auto sent = ::send(peer, greeting.data(), greeting.size(), MSG_NOSIGNAL);
        peers_.push_back(peer);
      }
    });
  }
  ~Stranger() {
    ::shutdown(socket_, SHUT_RDWR);
    if (answer_.joinable()) answer_.join();
    for (const int peer : peers_) ::close(peer);
    ::close(socket_);
  }
  Stranger(const Stranger&) = delete;
  Stranger& operator=(const Stranger&) = delete;
  int64_t port() const { return port_; }

 private:
  int socket_;
  int64_t port_;
  std::vector<int> peers_;
  std::thread answer_;
};

TEST_F(SeveralRanks, NoOtherProgramOnThePortKeepsThemWaiting) {
  for (const std::string& greeting :
       {std::string(), std::string("x"), std::string("SSH-2.0-OpenSSH_9.2\r\n")}) {
    const Stranger stranger(greeting);
    for (const int64_t rank : {0, 1}) {
      RankEnvironment environment;
      environment.rank = rank;
      environment.size = 2;
      environment.address = "127.0.0.1";
      environment.port = stranger.port();
      const auto began = std::chrono::steady_clock::now();
      std::string message;
      try {
        join_ranks(environment, at::kCPU, {.meet_seconds = 2, .answer_seconds = 2, .advice = {}});
      } catch (const DeviceError& error) {
        message = error.what();
      }
      EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(4)) << greeting;
      EXPECT_NE(message.find(concat("rank ", rank, " of 2, rank 0 at 127.0.0.1:", stranger.port())),
                std::string::npos)
          << message;
    }
  }
}

TEST_F(SeveralRanks, SumsLargestAndFirst) {
  expect_success(as_ranks([](Ranks& ranks) {
    const auto rank = static_cast<double>(ranks.rank());
    EXPECT_EQ(ranks.size(), kSize);
    EXPECT_EQ(ranks.sum({rank, 1.0}), (std::vector<double>{3.0, 3.0}));
    EXPECT_EQ(ranks.largest({rank, -rank - 1.0, -5.0}), (std::vector<double>{2.0, -1.0, -5.0}));
    EXPECT_EQ(ranks.from_first(std::vector<int64_t>{ranks.rank(), int64_t{1} << 62}),
              (std::vector<int64_t>{0, int64_t{1} << 62}));
  }));
}

TEST_F(SeveralRanks, TensorsOfDifferentTypesAndSizesAreAddedInPlace) {
  expect_success(as_ranks([](Ranks& ranks) {
    const auto value = static_cast<double>(1 << ranks.rank());
    const at::Tensor plain = at::full({2, 3}, value, at::kFloat), nan = at::full({1}, value, at::kFloat),
                     half = at::full({5}, value, at::kBFloat16),
                     whole = at::full({4}, ranks.rank(), at::kLong),
                     column = at::full({3, 2}, value, at::kDouble).t();
    if (ranks.rank() == 1) nan.fill_(std::numeric_limits<float>::quiet_NaN());
    ranks.all_reduce_sum({plain, nan, half, whole, column});
    EXPECT_TRUE(at::equal(plain, at::full({2, 3}, 7.0, at::kFloat)));
    EXPECT_TRUE(at::isnan(nan).item<bool>());
    EXPECT_TRUE(at::equal(half, at::full({5}, 7.0, at::kBFloat16)));
    EXPECT_TRUE(at::equal(whole, at::full({4}, 3, at::kLong)));
    EXPECT_TRUE(at::equal(column, at::full({2, 3}, 7.0, at::kDouble)));
    const at::Tensor sent = at::full({3}, value, at::kFloat);
    ranks.broadcast({sent});
    EXPECT_TRUE(at::equal(sent, at::ones({3})));
    ranks.barrier();
  }));
}

TEST_F(SeveralRanks, WhatDiffersIsNamedOnAll) {
  const auto thrown = as_ranks([](Ranks& ranks) {
    require_agreement(ranks, {{"settings", "same"}, {"backbone", "same"}});
    require_agreement(ranks, {{"settings", "same"}, {"backbone", ranks.rank() == 1 ? "other" : "same"}});
  });
  for (const auto& error : thrown)
    EXPECT_NE(message_of(error).find("1 of 3 ranks have another backbone than rank 0"), std::string::npos);
}

TEST_F(SeveralRanks, ARankThatLeavesIsMissedAtOnce) {
  const auto thrown = as_ranks([](Ranks& ranks) {
    if (ranks.rank() == 2) fail<DataError>("gone");
    ranks.barrier();
  });
  EXPECT_EQ(message_of(thrown[2]), "gone");
  for (const std::size_t rank : {0U, 1U}) {
    EXPECT_THROW(std::rethrow_exception(thrown[rank]), DeviceError);
    EXPECT_NE(message_of(thrown[rank]).find("lost the others"), std::string::npos)
        << message_of(thrown[rank]);
    EXPECT_NE(message_of(thrown[rank]).find("Try again"), std::string::npos);
  }
}

}  // namespace
}  // namespace focus::distributed
