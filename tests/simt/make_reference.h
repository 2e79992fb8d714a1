// References of detectors, made by the CPU device and by PlainDevice.
#pragma once

#include <algorithm>
#include <memory>
#include <string>

#include "tests/simt/detector_checks.h"
#include "tests/simt/plain_device.h"

namespace frcnn::simt_test {

inline DetectorReference make_reference(const DetectorCase& test_case, bool stages) {
  DetectorReference reference;
  reference.stages = stages;
  Detector exact(test_case.model, options_for(test_case, "cpu", Precision::fp32));
  DetectRequest request;
  request.want_tensors = request.want_proposals = true;
  reference.all = exact.detect(test_case.view(), request);
  DetectRequest given;
  given.want_tensors = true;
  given.proposals = &reference.all.proposals;
  reference.head = exact.detect(test_case.view(), given);

  // What is kept: from the one what comes before the proposals, from the other what comes behind them.
  const std::vector<NamedTensor>& all = reference.all.tensors;
  const auto named = [](const std::string& name) {
    return [name](const NamedTensor& tensor) { return tensor.name == name; };
  };
  const auto rois = std::find_if(all.begin(), all.end(), named("rois"));
  std::vector<NamedTensor> kept_all, kept_head;
  for (auto it = all.begin(); it != all.end(); ++it)
    if ((stages && it < rois) || it->name == "cls_prob" || it->name == "pred_boxes") kept_all.push_back(*it);
  for (const NamedTensor& tensor : reference.head.tensors) {
    const bool given_too =
        tensor.name == "rois" || tensor.name == "roi_scores" || tensor.name == "detections";
    if (stages && !given_too && std::find_if(all.begin(), rois, named(tensor.name)) == rois)
      kept_head.push_back(tensor);
  }
  reference.all.tensors = std::move(kept_all);
  reference.head.tensors = std::move(kept_head);
  if (!stages) return reference;

  for (const Precision precision : {Precision::tf32, Precision::fp16, Precision::bf16}) {
    Detector plain(test_case.model, std::make_shared<PlainDevice>(precision),
                   options_for(test_case, "", precision));
    auto& errors = reference.plain_error[std::string(name_of(precision))];
    const auto add = [&](const std::string& prefix, const DetectResult& by_plain, const DetectResult& want) {
      for (const NamedTensor& tensor : want.tensors) {
        if (prefix == "all." && (tensor.name == "cls_prob" || tensor.name == "pred_boxes")) continue;
        const NamedTensor* const theirs = find(by_plain, tensor.name);
        REQUIRE(theirs);
        errors[prefix + tensor.name] = relative_error(*theirs, tensor);
      }
    };
    add("all.", plain.detect(test_case.view(), request), reference.all);
    add("head.", plain.detect(test_case.view(), given), reference.head);
  }
  return reference;
}

}  // namespace frcnn::simt_test
