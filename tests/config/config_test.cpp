#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>

#include <vector>

#include "focus/config/fields.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "support/idle_settings.h"
#include "support/temporary_folder.h"

namespace focus::config {
namespace {

enum class Unit { bases, focus };

struct Window {
  int64_t size = 1024;
  Unit unit = Unit::bases;
  void visit(Fields& f) {
    f.integer("size", size, {1, 4096}, "entries per window");
    f.choice("unit", unit, {{"bases", Unit::bases}, {"focus", Unit::focus}}, "what `size` counts");
  }
};

struct Stage {
  int64_t steps = 10;
  double rate = 0.5;
  void visit(Fields& f) {
    f.integer("steps", steps, {0}, "steps");
    f.number("rate", rate, {0, 1}, "rate");
  }
};

struct Settings {
  bool shuffle = false;
  int64_t seed = 42;
  double lr = 1e-4;
  std::string name = "run";
  std::vector<int64_t> layers = {1, 2};
  std::vector<std::string> inputs;
  Window window;
  std::vector<Stage> stages;
  void visit(Fields& f) {
    f.boolean("shuffle", shuffle, "shuffle the records");
    f.integer("seed", seed, {}, "random seed");
    f.number("lr", lr, {0}, "learning rate");
    f.text("name", name, "name of the run");
    f.integers("layers", layers, {0, 31}, "layers");
    f.texts("inputs", inputs, "input files");
    f.group("window", window, "the window plan");
    f.list("stages", stages, "stages of training");
  }
};

Settings read(const std::string& json, const std::vector<std::string>& overrides = {}) {
  Settings run;
  read_text(json, "run.json", overrides, run);
  return run;
}

std::string error_of(const std::string& json, const std::vector<std::string>& overrides = {}) {
  try {
    read(json, overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(ConfigRead, EveryKindOfField) {
  const Settings run = read(R"({ // a comment
    "shuffle": true, "seed": -7, "lr": 1, "name": "tiny", "layers": [3, 4.0], "inputs": ["a.fa", "b.fa"], /* another */
    "window": {"size": 1e3, "unit": "focus"}, "stages": [{"steps": 1}, {"rate": 0.25}]})");
  EXPECT_TRUE(run.shuffle);
  EXPECT_EQ(run.seed, -7);
  EXPECT_EQ(run.lr, 1.0);
  EXPECT_EQ(run.name, "tiny");
  EXPECT_EQ(run.layers, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(run.inputs, (std::vector<std::string>{"a.fa", "b.fa"}));
  EXPECT_EQ(run.window.size, 1000);
  EXPECT_EQ(run.window.unit, Unit::focus);
  ASSERT_EQ(run.stages.size(), 2u);
  EXPECT_EQ(run.stages[0].steps, 1);
  EXPECT_EQ(run.stages[0].rate, 0.5);
  EXPECT_EQ(run.stages[1].steps, 10);
  EXPECT_EQ(run.stages[1].rate, 0.25);
}

TEST(ConfigRead, AbsentKeysKeepTheirDefaults) {
  const Settings run = read(R"({"window": {}})");
  EXPECT_EQ(run.window.size, 1024);
  EXPECT_EQ(run.seed, 42);
  EXPECT_EQ(run.layers.size(), 2u);
}

TEST(ConfigRead, UnknownKeyNamesPathAndNearest) {
  EXPECT_EQ(error_of(R"({"sead": 1})"), "run.json: sead: unknown key; did you mean \"seed\"?");
  EXPECT_EQ(error_of(R"({"window": {"unti": "focus"}})"),
            "run.json: window.unti: unknown key; did you mean \"window.unit\"?");
  EXPECT_EQ(error_of(R"({"stages": [{}, {"step": 1}]})"),
            "run.json: stages.1.step: unknown key; did you mean \"stages.1.steps\"?");
  // The right key in the wrong place; elements of an empty list are known too.
  EXPECT_EQ(error_of(R"({"unit": "focus"})"), "run.json: unit: unknown key; did you mean \"window.unit\"?");
  EXPECT_EQ(error_of(R"({"rate": 1})"), "run.json: rate: unknown key; did you mean \"stages.N.rate\"?");
  EXPECT_EQ(error_of(R"({"window": {"colour": 1}})"),
            "run.json: window.colour: unknown key; known here: \"size\", \"unit\"");
}

TEST(ConfigRead, WrongTypes) {
  EXPECT_EQ(error_of(R"({"shuffle": 1})"), "run.json: shuffle: expected true or false, got 1");
  EXPECT_EQ(error_of(R"({"seed": "1"})"), "run.json: seed: expected an integer, got \"1\"");
  EXPECT_EQ(error_of(R"({"seed": 1.5})"), "run.json: seed: expected an integer, got 1.5");
  EXPECT_EQ(error_of(R"({"seed": null})"), "run.json: seed: expected an integer, got null");
  EXPECT_EQ(error_of(R"({"lr": "fast"})"), "run.json: lr: expected a number >= 0, got \"fast\"");
  EXPECT_EQ(error_of(R"({"name": 3})"), "run.json: name: expected a text in double quotes, got 3");
  EXPECT_EQ(error_of(R"({"layers": 3})"), "run.json: layers: expected a list of integers, got 3");
  EXPECT_EQ(error_of(R"({"layers": [1, "x"]})"),
            "run.json: layers.1: expected an integer in [0, 31], got \"x\"");
  EXPECT_EQ(error_of(R"({"inputs": [1]})"), "run.json: inputs.0: expected a text in double quotes, got 1");
  EXPECT_EQ(error_of(R"({"window": [1]})"), "run.json: window: expected an object, got the list [1]");
  EXPECT_EQ(error_of(R"({"stages": {"0": {}}})"),
            "run.json: stages: expected a list of objects, got the object {\"0\":{}}");
  EXPECT_EQ(error_of("[1]"), "run.json: expected an object { ... } at the top, got the list [1]");
}

TEST(ConfigRead, OutOfRange) {
  EXPECT_EQ(error_of(R"({"window": {"size": 0}})"),
            "run.json: window.size: expected an integer in [1, 4096], got 0");
  EXPECT_EQ(error_of(R"({"lr": -1})"), "run.json: lr: expected a number >= 0, got -1");
  EXPECT_EQ(error_of(R"({"stages": [{"rate": 1.5}]})"),
            "run.json: stages.0.rate: expected a number in [0, 1], got 1.5");
  EXPECT_EQ(error_of(R"({"layers": [32]})"), "run.json: layers.0: expected an integer in [0, 31], got 32");
  EXPECT_EQ(read(R"({"seed": 9223372036854775807})").seed, INT64_MAX);
  EXPECT_NE(error_of(R"({"seed": 9223372036854775808})").find("expected an integer"), std::string::npos);
  EXPECT_NE(error_of(R"({"seed": 1e30})").find("expected an integer"), std::string::npos);
  EXPECT_NE(error_of(R"({"lr": 1e999})"), "no error");
}

TEST(ConfigRead, BadChoiceListsTheChoices) {
  EXPECT_EQ(
      error_of(R"({"window": {"unit": "base"}})"),
      "run.json: window.unit: expected one of \"bases\", \"focus\", got \"base\"; did you mean \"bases\"?");
  EXPECT_EQ(error_of(R"({"window": {"unit": 3}})"),
            "run.json: window.unit: expected one of \"bases\", \"focus\", got 3");
}

TEST(ConfigRead, DuplicateKey) {
  EXPECT_EQ(error_of(R"({"seed": 1, "seed": 2})"), "run.json: seed: the key stands twice; keep one of them");
  EXPECT_EQ(error_of(R"({"layers": [1, 2], "stages": [{"steps": 1}, {"rate": 0, "rate": 1}]})"),
            "run.json: stages.1.rate: the key stands twice; keep one of them");
}

TEST(ConfigRead, SyntaxErrorNamesLineAndColumn) {
  const std::string error = error_of("{\n  \"seed\": 1\n  \"lr\": 2}");
  EXPECT_NE(error.find("run.json: line 3, column 6: syntax error"), std::string::npos) << error;
  EXPECT_NE(error_of("").find("run.json: line 1, column 1"), std::string::npos);
  EXPECT_NE(error_of("{} {}").find("line 1"), std::string::npos);
}

std::string nested(const std::string& begin, const std::string& middle, const std::string& end,
                   std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += begin;
  out += middle;
  for (std::size_t i = 0; i < times; ++i) out += end;
  return out;
}

TEST(ConfigRead, NestingHasAnEnd) {
  for (const std::size_t depth : {200U, 200'000U}) {
    for (const std::string& text : {"{\"stages\": " + nested("[", "", "]", depth) + "}",
                                    nested("[", "", "]", depth), nested("{\"a\":", "1", "}", depth),
                                    nested("[{\"a\":", "1", "}]", depth), nested("[", "", "", depth)})
      EXPECT_EQ(error_of(text), "run.json: nested more than 100 levels deep; no JSON that is read here is");
    EXPECT_NE(
        error_of("{}", {"stages=" + nested("[", "", "]", depth)}).find("nested more than 100 levels deep"),
        std::string::npos);
  }
  EXPECT_NE(error_of("{}", {nested("a.", "a", "", 200'000) + "=1"}).find("nested more than 100 levels deep"),
            std::string::npos);
  // What is not too deep is judged as before.
  EXPECT_NE(error_of("{\"stages\": " + nested("[", "", "]", 90) + "}")
                .find("stages.0: expected an object, got the list [[["),
            std::string::npos);
}

TEST(ConfigRead, NumbersThatWouldBecomeZeroAreErrors) {
  EXPECT_EQ(
      error_of(R"({"lr": 1e-400})"),
      "run.json: lr: 1e-400 is too small for a number here and would become 0; write 0 where that is meant");
  EXPECT_EQ(error_of(R"({"stages": [{}, {"rate": 0.0001e-330}]})"),
            "run.json: stages.1.rate: 0.0001e-330 is too small for a number here and would become 0; write 0 "
            "where that is meant");
  EXPECT_NE(error_of("{}", {"lr=-5E-999"}).find("-5E-999 is too small"), std::string::npos);
  EXPECT_EQ(read(R"({"lr": 1e-310})").lr, 1e-310);
  EXPECT_EQ(read(R"({"lr": 0.0e-999})").lr, 0);
  EXPECT_EQ(read(R"({"lr": 0})", {"name=\"1e-400\""}).name, "1e-400");
  EXPECT_NE(error_of(R"({"lr": 1e400})").find("run.json"), std::string::npos);
}

/// Files as a configuration names them.
struct Inputs {
  std::string fasta;
  std::vector<std::string> regions;
  std::map<std::string, std::string> adapters;
  void visit(Fields& f) {
    f.file("fasta", fasta, "sequences");
    f.regions("regions", regions, "regions or .bed files");
    f.named_files("adapters", adapters, "files by label");
  }
};

TEST(ConfigFile, PathsCountFromTheWorkingFolderThenFromTheFile) {
  const testing::TemporaryFolder folder;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::create_directories(folder / "here");
  std::filesystem::create_directories(folder / "there/sub");
  for (const char* name : {"here/both.fa", "there/both.fa", "there/sub/x.fa", "there/x.bed", "there/chr1",
                           "there/a.safetensors"})
    write_file(folder / name, "x");
  std::filesystem::current_path(folder / "here");
  const auto inputs = [](const std::string& text, const std::vector<std::string>& overrides = {}) {
    write_file("../there/run.json", text);
    Inputs out;
    read_file("../there/run.json", overrides, out);
    return out;
  };
  EXPECT_EQ(inputs(R"({"fasta": "both.fa"})").fasta, "both.fa");
  EXPECT_EQ(inputs(R"({"fasta": "sub/x.fa"})").fasta, "../there/sub/x.fa");
  EXPECT_EQ(inputs(R"({"fasta": "./sub/../sub/x.fa"})").fasta, "../there/sub/x.fa");
  EXPECT_EQ(inputs(R"({"fasta": ""})").fasta, "");
  EXPECT_EQ(inputs(R"({"fasta": "/no/such.fa"})").fasta, "/no/such.fa");
  const Inputs several =
      inputs(R"({"regions": ["x.bed", "chr1", "chr1:1-5"], "adapters": {"mine": "a.safetensors"}})");
  EXPECT_EQ(several.regions, (std::vector<std::string>{"../there/x.bed", "chr1", "chr1:1-5"}));
  EXPECT_EQ(several.adapters.at("mine"), "../there/a.safetensors");
  // The command line counts from the working folder alone.
  EXPECT_EQ(inputs("{}", {"fasta=sub/x.fa"}).fasta, "sub/x.fa");
  EXPECT_EQ(tried_too("cannot open 'sub/x.fa'"), "");
  EXPECT_EQ(inputs(R"({"fasta": "lost.fa"})").fasta, "lost.fa");
  EXPECT_EQ(tried_too("cannot open 'lost.fa': No such file"),
            "; there is no '../there/lost.fa' beside the configuration file either");
  EXPECT_EQ(tried_too("cannot open 'other.fa'"), "");
  std::filesystem::current_path(before);
}

TEST(ConfigOverride, SetsAnyField) {
  const Settings run =
      read(R"({"stages": [{}, {}], "window": {"size": 5}})",
           {"seed=7", "lr=1e-3", "window.size=64", "window.unit=focus", "name=a b=c", "layers=[5]",
            "stages.1.rate=0.125", "shuffle=true", "inputs=[\"x\"]", "inputs.0=22"});
  EXPECT_EQ(run.seed, 7);
  EXPECT_EQ(run.lr, 1e-3);
  EXPECT_EQ(run.window.size, 64);
  EXPECT_EQ(run.window.unit, Unit::focus);
  EXPECT_EQ(run.name, "a b=c");
  EXPECT_EQ(run.layers, (std::vector<int64_t>{5}));
  EXPECT_EQ(run.stages[0].rate, 0.5);
  EXPECT_EQ(run.stages[1].rate, 0.125);
  EXPECT_TRUE(run.shuffle);
  EXPECT_EQ(run.inputs, (std::vector<std::string>{"22"}));
}

TEST(ConfigRead, NamesOfTheUsersOwn) {
  struct Named {
    std::map<std::string, std::string> files = {{"default", "d"}};
    void visit(Fields& f) { f.named_files("files", files, "files by label"); }
  } value;
  read_text(R"({"files": {"a": "x", "b": "y"}})", "test", {"files.b=22", "files.c=z"}, value);
  EXPECT_EQ(value.files, (std::map<std::string, std::string>{{"a", "x"}, {"b", "22"}, {"c", "z"}}));
  Named again;
  read_text(to_json(value), "written", {}, again);
  EXPECT_EQ(again.files, value.files);
  EXPECT_NE(describe(value).find(R"({"a": "x", "b": "22", "c": "z"})"), std::string::npos);
  for (const char* wrong :
       {R"({"files": ["x"]})", R"({"files": {"a": 1}})", R"({"files": {"a": {"b": "x"}}})"})
    EXPECT_THROW(read_text(wrong, "test", {}, again), ConfigError) << wrong;
}

TEST(ConfigOverride, TextTakesTheValueAsItStands) {
  EXPECT_EQ(read("{}", {"name=22"}).name, "22");
  EXPECT_EQ(read("{}", {"name=1e5"}).name, "1e5");
  EXPECT_EQ(read("{}", {"name=\"quoted\""}).name, "quoted");
  EXPECT_EQ(read("{}", {"name="}).name, "");
}

TEST(ConfigOverride, LaterOnesWinAndGroupsMerge) {
  const Settings run = read("{}", {"seed=1", "window={\"size\": 9}", "seed=2"});
  EXPECT_EQ(run.seed, 2);
  EXPECT_EQ(run.window.size, 9);
  EXPECT_EQ(run.window.unit, Unit::bases);
}

TEST(ConfigOverride, Errors) {
  EXPECT_EQ(error_of("{}", {"seed"}), "--set seed: expected path.to.key=value");
  EXPECT_EQ(error_of("{}", {"window..size=1"}),
            "--set window..size=1: the path 'window..size' has an empty part");
  EXPECT_EQ(error_of("{}", {"window.sise=1"}),
            "--set window.sise=1: window.sise: unknown key; did you mean \"window.size\"?");
  EXPECT_EQ(error_of("{}", {"window.size=big"}),
            "--set window.size=big: window.size: expected an integer in [1, 4096], got \"big\"");
  EXPECT_EQ(error_of("{}", {"seed.x=1"}),
            "--set seed.x=1: seed: expected an integer, got the object {\"x\":1}");
  EXPECT_EQ(error_of("{}", {"stages.0.rate=1"}),
            "--set stages.0.rate=1: stages.0: the list has 0 elements; expected an index below that, or the "
            "whole list as JSON");
  EXPECT_EQ(error_of("{}", {"layers.x=1"}),
            "--set layers.x=1: layers.x: the list has 2 elements; expected an index below that, or the whole "
            "list as JSON");
  EXPECT_EQ(error_of("{}", {"window={\"size\": 1, \"size\": 2}"}),
            "--set window={\"size\": 1, \"size\": 2}: size: the key stands twice; keep one of them");
}

TEST(ConfigFile, MissingFileIsAConfigError) {
  Settings run;
  try {
    read_file("no/such/run.json", {}, run);
    FAIL() << "expected ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("no/such/run.json"), std::string::npos);
  }
  read_file("", {"seed=3"}, run);
  EXPECT_EQ(run.seed, 3);
}

TEST(ConfigFile, ErrorsNameTheFile) {
  const auto path = std::filesystem::temp_directory_path() / concat("focus-config-", ::getpid(), ".json");
  write_file(path, "{\"seed\": true}");
  Settings run;
  try {
    read_file(path.string(), {}, run);
    ADD_FAILURE() << "expected ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_EQ(std::string(error.what()), path.string() + ": seed: expected an integer, got true");
  }
  std::filesystem::remove(path);
}

TEST(ConfigWrite, IsReadableAgainAndKeepsTheOrder) {
  const Settings run =
      read(R"({"lr": 0.1, "stages": [{"steps": 3}], "name": "q\"uote", "inputs": ["a", "b"]})");
  const std::string json = to_json(run);
  EXPECT_EQ(
      json,
      "{\n  \"shuffle\": false,\n  \"seed\": 42,\n  \"lr\": 0.1,\n  \"name\": \"q\\\"uote\",\n  \"layers\": "
      "[1, 2],\n"
      "  \"inputs\": [\"a\", \"b\"],\n  \"window\": {\n    \"size\": 1024,\n    \"unit\": \"bases\"\n  },\n"
      "  \"stages\": [\n    {\n      \"steps\": 3,\n      \"rate\": 0.5\n    }\n  ]\n}\n");
  EXPECT_EQ(to_json(read(json)), json);
  EXPECT_NE(to_json(Settings{}).find("\"stages\": []"), std::string::npos);
}

TEST(ConfigWrite, RefusesWhatJsonCannotHold) {
  Settings run;
  run.name = "\xff\xfe";
  EXPECT_THROW(to_json(run), ConfigError);
  Settings infinite;
  infinite.lr = std::numeric_limits<double>::infinity();
  EXPECT_THROW(to_json(infinite), InternalError);
}

TEST(ConfigDescribe, OneLinePerField) {
  const std::string text = describe(Settings{});
  EXPECT_NE(text.find("window.size     integer   default 1024  [1, 4096]  entries per window\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("default \"bases\"  bases|focus  what `size` counts\n"), std::string::npos) << text;
  EXPECT_NE(text.find("stages.N.rate"), std::string::npos) << text;
  EXPECT_NE(text.find("default [1, 2]  each [0, 31]  layers\n"), std::string::npos) << text;
}

TEST(ConfigRead, AFailureChangesNothing) {
  Settings run;
  EXPECT_THROW(read_text(R"({"seed": 1, "lr": -1})", "run.json", {}, run), ConfigError);
  EXPECT_EQ(to_json(run), to_json(Settings{}));
}

enum class Kind { plain, rich };

struct Extra {
  int64_t size = 4;
  std::optional<int64_t> most;
  void visit(Fields& f) {
    f.integer("size", size, {0, 9}, "how many");
    f.only(f.when(size > 0, "size", "> 0")).integer_or("most", most, -1, {-1, 9}, "at most; -1 = any");
  }
};

struct Conditional {
  Kind kind = Kind::plain;
  Extra extra;
  std::vector<Extra> more;
  std::optional<Kind> other;
  void visit(Fields& f) {
    const auto rich = f.when(kind == Kind::rich, "kind", "is 'rich'");
    f.only(rich).group("extra", extra, "more of it");
    f.choice("kind", kind, {{"plain", Kind::plain}, {"rich", Kind::rich}}, "what it is");
    f.list("more", more, "of each");
    f.only(rich && f.when(!more.empty(), "more", "is not empty"))
        .choice_or("other", other, "none", {{"plain", Kind::plain}, {"rich", Kind::rich}}, "second");
  }
};

std::string refusal(const std::string& json, const std::vector<std::string>& overrides = {}) {
  try {
    Conditional value;
    read_text(json, "run.json", overrides, value);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ConfigEffect, EveryConditionOfTheListIsKept) {
  testing::expect_idle_settings_refused<Conditional>({{},
                                                      {"kind=rich"},
                                                      {"kind=rich", "extra.size=0"},
                                                      {"more=[{}, {\"size\": 0}]"},
                                                      {"more=[{\"size\": 0}]"}});
}

TEST(ConfigEffect, CountsWhenAllIsRead) {
  // The condition stands later in the list, later in the file, or in an override.
  EXPECT_EQ(refusal(R"({"extra": {"size": 3}, "kind": "rich"})"), "accepted");
  EXPECT_EQ(refusal(R"({"extra": {"size": 3}})", {"kind=rich"}), "accepted");
  EXPECT_EQ(refusal("{}", {"extra.size=3", "kind=rich"}), "accepted");
  EXPECT_EQ(refusal(R"({"extra": {"size": 3}, "kind": "rich"})", {"kind=plain"}),
            "run.json: extra.size has no effect unless kind is 'rich'; remove it");
  EXPECT_EQ(refusal(R"({"extra": {"size": 3}, "kind": "rich"})", {"kind=plain", "extra.size=5"}),
            "--set extra.size=5: extra.size has no effect unless kind is 'rich'; remove it");
  EXPECT_EQ(refusal(R"({"more": [{}, {"size": 0, "most": 3}]})"),
            "run.json: more.1.most has no effect unless more.1.size > 0; remove it");
}

TEST(ConfigEffect, WhatAFreshStructSaysIsAccepted) {
  EXPECT_EQ(refusal(R"({"extra": {"size": 4, "most": -1}, "other": "none"})"), "accepted");
  EXPECT_EQ(refusal(to_json(Conditional{})), "accepted");
}

TEST(ConfigEffect, IsAskedOfStructsToo) {
  Conditional value;
  EXPECT_NO_THROW(refuse_idle(value));
  value.extra.most = 3;
  try {
    refuse_idle(value, "outer.");
    FAIL() << "expected ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "outer.extra.most has no effect unless outer.kind is 'rich'; remove it");
  }
}

TEST(ConfigEffect, IsDescribed) {
  const std::string text = describe(Conditional{});
  EXPECT_NE(text.find("more of it  (only if kind is 'rich')\n"), std::string::npos) << text;
  EXPECT_NE(text.find("[-1, 9]  at most; -1 = any  (only if extra.size > 0)\n"), std::string::npos) << text;
  EXPECT_NE(text.find("second  (only if kind is 'rich' and more is not empty)\n"), std::string::npos) << text;
}

struct TwiceListed {
  int64_t a = 0;
  void visit(Fields& f) {
    f.integer("a", a, {}, "");
    f.integer("a", a, {}, "");
  }
};

TEST(ConfigFields, AFieldListedTwiceIsABug) {
  TwiceListed twice;
  EXPECT_THROW(to_json(twice), InternalError);
  EXPECT_THROW(read_file("", {}, twice), InternalError);
}

}  // namespace
}  // namespace focus::config
