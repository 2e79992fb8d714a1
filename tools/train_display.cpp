#include "train_display.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace frcnn {
namespace {

constexpr double memory = 0.98;  // of the running means, per update

std::size_t terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

void Smoothed::add(const UpdateRecord& record) {
  weight_ = memory * weight_ + 1;
  const auto blend = [&](double& mean, double value) { mean += (value - mean) / weight_; };
  blend(losses.rpn_cls, record.losses.rpn_cls);
  blend(losses.rpn_bbox, record.losses.rpn_bbox);
  blend(losses.cls, record.losses.cls);
  blend(losses.bbox, record.losses.bbox);
  blend(seconds, record.seconds);
  blend(images, static_cast<double>(record.images.size()));
}

std::string duration_text(double seconds) {
  const auto s = static_cast<std::int64_t>(std::llround(std::max(seconds, 0.0)));
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
                   : fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string update_text(const Smoothed& smoothed, const UpdateRecord& record, std::int64_t iterations) {
  const TrainLosses& l = smoothed.losses;
  const double left = smoothed.seconds * static_cast<double>(iterations - record.step);
  return fmt::format(
      "{}/{}  loss {:.3f} (rpn {:.3f} {:.3f}, head {:.3f} {:.3f})  lr {:.2g}  epoch {:.1f}  {:.2f} images/s  "
      "{} left",
      record.step, iterations, l.total(), l.rpn_cls, l.rpn_bbox, l.cls, l.bbox, record.learning_rate,
      record.epoch, smoothed.images / std::max(smoothed.seconds, 1e-9), duration_text(left));
}

TrainDisplay::TrainDisplay(std::int64_t first, std::int64_t iterations, std::int64_t every)
    : iterations_(iterations), every_(every), step_(first), terminal_(isatty(STDERR_FILENO) == 1) {}

void TrainDisplay::updated(const UpdateRecord& record) {
  smoothed_.add(record);
  step_ = record.step;
  const std::string text = update_text(smoothed_, record, iterations_);
  for (const std::string& broken : record.skipped) warn("skipped: " + broken);
  if (record.step % every_ == 0 || record.step == iterations_) say(text);
  live(text);
}

void TrainDisplay::evaluating(std::size_t done, std::size_t total) {
  live(fmt::format("{}/{}  evaluating: image {} of {}", step_, iterations_, done + 1, total));
}

void TrainDisplay::say(const std::string& line) {
  clear();
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

void TrainDisplay::warn(const std::string& message) {
  clear();
  fmt::print(stderr, "frcnn: warning: {}\n", message);
}

void TrainDisplay::live(const std::string& line) {
  if (!terminal_) return;
  const auto now = std::chrono::steady_clock::now();
  if (visible_ && now - drawn_ < std::chrono::milliseconds(100)) return;
  constexpr std::int64_t width = 16;
  const auto filled = static_cast<std::size_t>(
      std::clamp<std::int64_t>(step_ * width / std::max<std::int64_t>(iterations_, 1), 0, width));
  std::string text = "[" + std::string(filled, '#') + std::string(width - filled, '-') + "] " + line;
  text.resize(std::min(text.size(), terminal_columns() - 1));
  std::fprintf(stderr, "\r\033[K%s", text.c_str());
  std::fflush(stderr);
  visible_ = true;
  drawn_ = now;
}

void TrainDisplay::clear() {
  if (!visible_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  visible_ = false;
}

}  // namespace frcnn
