// The command `frcnn`: chooses the subcommand, and is the one place where errors become text and exit codes.
#include <cstdio>
#include <exception>
#include <new>
#include <string>

#include "commands.h"
#include "commit.h"

namespace {

void report(const std::string& message) { std::fprintf(stderr, "frcnn: error: %s\n", message.c_str()); }

constexpr const char* examples =
    "Examples:\n"
    "  frcnn convert zf.caffemodel zf.safetensors --prototxt test.prototxt --classes voc\n"
    "  frcnn detect zf.safetensors photo.jpg --draw out\n"
    "  frcnn detect zf.safetensors photos/ --json detections.json --score 0.7\n"
    "  frcnn run zf.safetensors blob.safetensors ours.safetensors\n"
    "  frcnn diff reference.safetensors ours.safetensors\n"
    "  frcnn eval zf.safetensors --data VOC2007 --set test\n"
    "  frcnn train --preset small-data --init zf.safetensors --data cells --train-set train --val-set val "
    "--out run\n"
    "\n"
    "`frcnn COMMAND --help` explains a command. Exit codes: 0 done, 1 bad input, 2 wrong usage,\n"
    "128 + the signal's number: stopped by it, 130 for Ctrl-C.";

// CLI11 names the offending option itself; the hint names the page that explains it. What is wrong with the
// files of a command (one too few, or -o before the one to write) is clear where they are listed.
int usage_error(const CLI::App& app, const CLI::ParseError& error) {
  std::string command = "frcnn";
  const CLI::App* at = &app;
  for (; !at->get_subcommands().empty(); command += " " + at->get_name()) at = at->get_subcommands().front();
  std::string what = error.what();
  while (!what.empty() && (what.back() == '\n' || what.back() == ' ')) what.pop_back();
  report(what);
  CLI::Formatter formatter;
  formatter.column_width(22);
  if (what.rfind("--", 0) != 0) std::fputs(formatter.make_positionals(at).c_str(), stderr);
  std::fprintf(stderr, "Run `%s --help` for its usage.\n", command.c_str());
  return frcnn::exit_usage;
}

// Buffered output that could not be written (a full disk behind `> FILE`) must not look like success.
int finish(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  report("cannot write to standard output");
  return frcnn::exit_bad_input;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Faster R-CNN: detects objects in images, and trains, converts, compares and evaluates detectors.",
      "frcnn");
  app.set_version_flag("--version", std::string("frcnn ") + FRCNN_VERSION + " (" + FRCNN_COMMIT + ")",
                       "Print the version and the commit it was built from");
  app.require_subcommand(0, 1);  // its absence is told below, after unknown options were
  app.footer(examples);
  app.get_formatter()->column_width(36);

  frcnn::Action action;
  frcnn::add_detect(app, action);
  frcnn::add_bench(app, action);
#if !defined(FRCNN_GPU_TOOL)  // the program for a machine with a GPU and little else: what needs no library
  frcnn::add_run(app, action);
  frcnn::add_diff(app, action);
  frcnn::add_convert(app, action);
  frcnn::add_export(app, action);
  frcnn::add_inspect(app, action);
  frcnn::add_eval(app, action);
  frcnn::add_train(app, action);
  frcnn::add_data(app, action);
  frcnn::add_doctor(app, action);
#endif

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return finish(app.exit(error));  // --help, --version
    return usage_error(app, error);
  }
  if (!action) return usage_error(app, CLI::RequiredError("A command"));
  try {
    return finish(action());
  } catch (const std::bad_alloc&) {
    report("out of memory");
  } catch (const std::exception& error) {
    report(error.what());
  }
  std::fflush(stdout);
  return frcnn::exit_bad_input;
}
