#include "training/plot_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace frcnn {
namespace {

constexpr double width = 800, height = 450, left = 70, right = 20, top = 58, bottom = 55;
// Distinct for people who see colours differently (Okabe and Ito).
constexpr std::array<const char*, 7> colours{"#000000", "#0072b2", "#d55e00", "#009e73",
                                             "#cc79a7", "#e69f00", "#56b4e9"};

struct Range {
  double low = 0, high = 1;
};

// 1, 2 or 5 times a power of ten: about `wanted` of them in the range.
double tick_step(const Range& range, int wanted) {
  const double rough = (range.high - range.low) / wanted, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough) return factor * power;
  return 10 * power;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out += c;
  }
  return out;
}

bool drawable(const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second);
}

class Canvas {
 public:
  explicit Canvas(const Plot& plot) : plot_(plot) {
    bool first = true;
    for (const PlotSeries& series : plot.series)
      for (const auto& point : series.points) {
        if (!drawable(point)) continue;
        if (first) x_ = {point.first, point.first}, y_ = {point.second, point.second};
        first = false;
        x_ = {std::min(x_.low, point.first), std::max(x_.high, point.first)};
        y_ = {std::min(y_.low, point.second), std::max(y_.high, point.second)};
      }
    y_.low = plot.y_min.value_or(y_.low);
    y_.high = plot.y_max.value_or(y_.high);
    for (Range* range : {&x_, &y_}) widen(*range);
  }

  std::string draw() {
    out_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
        "font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{0}\" height=\"{1}\" "
        "fill=\"#ffffff\"/>\n",
        width, height);
    text(width / 2, 24, "middle", plot_.title);
    text(left + (width - left - right) / 2, height - 12, "middle", plot_.x_label);
    out_ += fmt::format("<text transform=\"translate(18 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
                        (top + height - bottom) / 2, escaped(plot_.y_label));
    ticks();
    out_ +=
        fmt::format("<clipPath id=\"area\"><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/></clipPath>\n",
                    left, top, width - left - right, height - top - bottom);
    for (std::size_t i = 0; i < plot_.series.size(); ++i) line(plot_.series[i], colours[i % colours.size()]);
    legend();
    return out_ + "</svg>\n";
  }

 private:
  // A single value tells no scale: from 0 to it, as long as that is not lost beside it.
  static void widen(Range& range) {
    if (range.high > range.low) return;
    const double value = range.low;
    range = {std::min(value, 0.0), std::max(value, 0.0)};
    if (!(range.high - range.low > 1e-100)) range.high = range.low + 1;
  }

  double px(double x) const { return left + (x - x_.low) / (x_.high - x_.low) * (width - left - right); }
  double py(double y) const {
    return height - bottom - (y - y_.low) / (y_.high - y_.low) * (height - top - bottom);
  }
  void text(double x, double y, const char* anchor, const std::string& words) {
    out_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                        escaped(words));
  }
  void rule(double x1, double y1, double x2, double y2) {
    out_ +=
        fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#dddddd\"/>\n",
                    x1, y1, x2, y2);
  }

  void ticks() {
    const auto each = [](const Range& range, int wanted, const auto& draw) {
      const double step = tick_step(range, wanted);
      for (double i = std::ceil(range.low / step - 1e-9); i * step <= range.high + step * 1e-9; ++i)
        draw(i * step == 0 ? 0.0 : i * step);
    };
    each(x_, 8, [&](double x) {
      rule(px(x), top, px(x), height - bottom);
      text(px(x), height - bottom + 18, "middle", fmt::format("{:g}", x));
    });
    each(y_, 6, [&](double y) {
      rule(left, py(y), width - right, py(y));
      text(left - 8, py(y) + 4, "end", fmt::format("{:g}", y));
    });
  }

  void line(const PlotSeries& series, const char* colour) {
    std::string points;
    std::size_t count = 0;
    for (const auto& point : series.points) {
      if (!drawable(point)) continue;
      points += fmt::format("{:.1f},{:.1f} ", px(point.first), py(point.second));
      ++count;
    }
    if (count == 1) {
      const auto one = std::find_if(series.points.begin(), series.points.end(), drawable);
      out_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>\n", px(one->first),
                          py(one->second), colour);
    } else if (count > 1) {
      out_ += fmt::format(
          "<polyline clip-path=\"url(#area)\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" "
          "points=\"{}\"/>\n",
          colour, points);
    }
  }

  // In one row above the plot, where no line can be hidden.
  void legend() {
    double x = left;
    for (std::size_t i = 0; i < plot_.series.size(); ++i) {
      out_ += fmt::format(
          "<line x1=\"{0}\" y1=\"{1}\" x2=\"{2}\" y2=\"{1}\" stroke=\"{3}\" stroke-width=\"3\"/>\n", x,
          top - 14, x + 22, colours[i % colours.size()]);
      text(x + 28, top - 10, "start", plot_.series[i].name);
      x += 50 + 8 * static_cast<double>(plot_.series[i].name.size());
    }
  }

  const Plot& plot_;
  Range x_, y_;
  std::string out_;
};

}  // namespace

std::string plot_svg(const Plot& plot) { return Canvas(plot).draw(); }

std::vector<std::pair<double, double>> thinned(const std::vector<std::pair<double, double>>& points,
                                               std::size_t buckets) {
  if (buckets == 0 || points.size() <= buckets) return points;
  std::vector<std::pair<double, double>> means;
  for (std::size_t b = 0; b < buckets; ++b) {
    const std::size_t begin = b * points.size() / buckets, end = (b + 1) * points.size() / buckets;
    double x = 0, y = 0;
    for (std::size_t i = begin; i < end; ++i) {
      x += points[i].first;
      y += points[i].second;
    }
    const auto count = static_cast<double>(end - begin);
    means.emplace_back(x / count, y / count);
  }
  return means;
}

}  // namespace frcnn
