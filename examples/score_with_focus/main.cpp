// How likely a model finds each sequence of a FASTA file, read as a stream of which only summaries of closed
// windows are kept.
//   score_with_focus MODEL.yml WEIGHTS.pt SEQUENCES.fa
#include <focus/compress/memory/memory_factory.h>
#include <focus/core/error.h>
#include <focus/data/fasta.h>
#include <focus/data/letters.h>
#include <focus/infer/score.h>
#include <focus/weights/load_model.h>

#include <iostream>

int main(int argc, char** argv) {
  using namespace focus;
  if (argc != 4) {
    std::cerr << "usage: score_with_focus MODEL.yml WEIGHTS.pt SEQUENCES.fa\n";
    return static_cast<int>(ExitCode::usage);
  }
  try {
    const weights::LoadedModel loaded = weights::load_model(argv[1], argv[2], at::kFloat, "cpu");
    compress::MemoryConfig memory;
    memory.window.size = 1024;  // bases that stay as they are until the window closes
    memory.focus.k = 100;       // then one entry stands for so many of them
    const auto compressed = compress::make_memory("fitted", loaded.model, memory);
    const infer::Scorer scorer(*loaded.model, infer::compressed_stream(compressed, "fitted"), {});

    const auto fasta = data::open_fasta(argv[3]);
    for (const std::string& name : fasta->names()) {
      const std::string bases = fasta->fetch(name);
      const infer::RecordScore score =
          scorer.score(data::clean(bases), data::loss_weights(bases, 1.0F), name);
      std::cout << name << '\t' << score.mean_log_likelihood() << " nats per base\t"
                << score.memory.kept_bytes << " bytes kept for " << score.length << " bases\n";
    }
  } catch (const Error& error) {
    std::cerr << "error: " << error.what() << '\n';
    return static_cast<int>(error.exit_code());
  }
}
