// Line plots as SVG: small, and readable by every browser.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace frcnn {

struct PlotSeries {
  std::string name;                               // in the legend
  std::vector<std::pair<double, double>> points;  // x ascending; what is not finite is left out
};

struct Plot {
  std::string title, x_label, y_label;
  std::vector<PlotSeries> series;
  std::optional<double> y_min, y_max;  // else from the points; what lies beyond is cut off
};

std::string plot_svg(const Plot& plot);

// At most `buckets` points: means over neighbours.
std::vector<std::pair<double, double>> thinned(const std::vector<std::pair<double, double>>& points,
                                               std::size_t buckets);

}  // namespace frcnn
