// The subcommands of `frcnn`, one file each.
//
// add_x() puts a subcommand on `app` and, when the user chose it, sets `action` to what main() then runs.
// Options live in a shared_ptr that the callback captures. An action returns the process's exit code or
// throws; main() turns an exception into `frcnn: error: message` on stderr and exit code 1. Whatever depends
// on the content of the file system or of a file is decided in the action, never by a validator, so that it
// is bad input (1) and not usage (2).
#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace frcnn {

using Action = std::function<int()>;

enum ExitCode : int { exit_ok = 0, exit_bad_input = 1, exit_usage = 2 };

void add_detect(CLI::App& app, Action& action);
void add_run(CLI::App& app, Action& action);
void add_diff(CLI::App& app, Action& action);
void add_convert(CLI::App& app, Action& action);
void add_export(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_train(CLI::App& app, Action& action);
void add_data(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);

}  // namespace frcnn
