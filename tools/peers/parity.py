"""Whether two programs found the same, before anybody's time is worth printing."""

import math

LEAST = {"proposals": 100, "detections": 20}
# `equal` is for the same conventions in the same precision: the share of rows that, matched one to one, have a box with at
# least this IoU and a score within SCORE. A near tie that falls the other way may cost a row or two.
# `close` is for the same network in bf16, or with the proposal layer of another program: the mean IoU of each row's best
# partner, from ours to theirs and from theirs to ours, because suppression turns rounding into other choices among
# neighbours. Detections only within their class. Scores are compared in pairs with at least EQUAL_IOU, below which a partner
# may be another anchor or RoI with a score of its own: EQUAL_SHARE of them must differ by at most CLOSE_SCORE of ours, and they
# must be LEAST_SAME of all rows, or the scores are not known. Measured on ZF and VGG-16 with random weights and on ZF with
# trained ones, bf16 against fp32: 63 to 97 % of the rows are such pairs, and their scores differ by up to 2.9 % in PyTorch's bf16
# and 2.7 % in ours. Twice the former is the bound.
EQUAL_IOU, EQUAL_SHARE, SCORE = 0.98, 0.98, 1e-3
CLOSE_MEAN = {"proposals": 0.90, "detections": 0.80}   # two pictures through one trained network: 0.56 of proposals
CLOSE_SCORE, LEAST_SAME = 0.058, 1 / 3


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - both)


def first_number(kind):
    """Rows are [score, box] for proposals and [class, score, box] for detections."""
    return 1 if kind == "proposals" else 2


def overlaps(kind, ours, theirs):
    at = first_number(kind)
    return [[iou(a[at:], b[at:]) if at == 1 or a[0] == b[0] else 0.0 for b in theirs] for a in ours]


def matched(kind, ours, theirs, table):
    """(IoU, difference of scores) for each of our rows, the best pairs first; (0, infinity) for one without a partner. A
    program may not tell its proposals' scores (None)."""
    at = first_number(kind)
    pairs = [(overlap, m, n) for m, row in enumerate(table) for n, overlap in enumerate(row) if overlap > 0]
    result, mine, taken = [(0.0, math.inf)] * len(ours), set(), set()
    for overlap, m, n in sorted(pairs, key=lambda pair: -pair[0]):
        if m in mine or n in taken:
            continue
        mine.add(m)
        taken.add(n)
        scores = ours[m][at - 1], theirs[n][at - 1]
        result[m] = overlap, 0.0 if None in scores else abs(scores[0] - scores[1])
    return result


def mean_of_best(table):
    return sum(max(row, default=0.0) for row in table) / max(len(table), 1)


def finite(row):
    return all(x is None or math.isfinite(x) for x in row)


def compare(ours, theirs, rule):
    """({kind: {compared, theirs, mean_iou, equal_share, same, same_scores}}, what is wrong: a list of sentences)."""
    result, wrong = {}, []
    for kind, least in LEAST.items():
        if not all(finite(row) for row in ours[kind] + theirs[kind]):
            wrong.append("there are numbers among the %s that are not finite" % kind)
            continue
        count = len(ours[kind])
        table = overlaps(kind, ours[kind], theirs[kind])
        mean = min(mean_of_best(table), mean_of_best(list(zip(*table))))
        best = matched(kind, ours[kind], theirs[kind], table)
        share = sum(overlap >= EQUAL_IOU and score <= SCORE for overlap, score in best) / max(count, 1)
        same = [difference <= CLOSE_SCORE * row[first_number(kind) - 1] for row, (overlap, difference) in zip(ours[kind], best)
                if overlap >= EQUAL_IOU]
        same_scores = sum(same) / max(len(same), 1)
        result[kind] = {"compared": count, "theirs": len(theirs[kind]), "mean_iou": mean, "equal_share": share, "same": len(same),
                        "same_scores": same_scores}
        if count < least:
            wrong.append("%d %s, at least %d must be compared" % (count, kind, least))
        elif rule == "equal" and share < EQUAL_SHARE:
            wrong.append("%.1f %% of %d %s agree, %.0f %% must" % (100 * share, count, kind, 100 * EQUAL_SHARE))
        elif rule == "close" and mean < CLOSE_MEAN[kind]:
            wrong.append("mean IoU %.3f over %d %s, at least %.2f is needed" % (mean, count, kind, CLOSE_MEAN[kind]))
        elif rule == "close" and len(same) < LEAST_SAME * count:
            wrong.append("%d of %d %s have the same box, too few to compare scores" % (len(same), count, kind))
        elif rule == "close" and same_scores < EQUAL_SHARE:
            wrong.append("the scores of %.1f %% of %d %s with the same box agree, %.0f %% must" %
                         (100 * same_scores, len(same), kind, 100 * EQUAL_SHARE))
        # Boxes that only the other one found are as wrong as ours that it lacks.
        if abs(len(theirs[kind]) - count) > 0.2 * count + 1:
            wrong.append("%d %s against our %d" % (len(theirs[kind]), kind, count))
    return result, wrong
