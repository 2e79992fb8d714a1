"""Whether two programs found the same, before anybody's time is worth printing."""

LEAST = {"proposals": 100, "detections": 20}
# What must agree: the share of our rows for which the other has a box (of the same class) with at least this IoU.
# `equal` is for the same conventions in the same precision: a near tie that falls the other way may cost a row or two.
# `close` is for the same network in bf16, or with the proposal layer of another program: it judges the boxes' mean
# IoU, because suppression turns rounding into other choices among neighbours.
EQUAL_IOU, EQUAL_SHARE = 0.98, 0.98
CLOSE_MEAN = {"proposals": 0.95, "detections": 0.80}


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - both)


def best_ious(kind, ours, theirs):
    """Rows are [score, box] for proposals and [class, score, box] for detections."""
    at = 1 if kind == "proposals" else 2
    return [max([iou(row[at:], other[at:]) for other in theirs if at == 1 or other[0] == row[0]], default=0.0)
            for row in ours]


def compare(ours, theirs, rule):
    """({kind: {compared, theirs, mean_iou, equal_share}}, what is wrong: a list of sentences)."""
    result, wrong = {}, []
    for kind, least in LEAST.items():
        best = best_ious(kind, ours[kind], theirs[kind])
        count = len(best)
        mean = sum(best) / max(count, 1)
        share = sum(b >= EQUAL_IOU for b in best) / max(count, 1)
        result[kind] = {"compared": count, "theirs": len(theirs[kind]), "mean_iou": mean, "equal_share": share}
        if count < least:
            wrong.append("%d %s, at least %d must be compared" % (count, kind, least))
        elif rule == "equal" and share < EQUAL_SHARE:
            wrong.append("%.1f %% of %d %s agree, %.0f %% must" % (100 * share, count, kind, 100 * EQUAL_SHARE))
        elif rule == "close" and mean < CLOSE_MEAN[kind]:
            wrong.append("mean IoU %.3f over %d %s, at least %.2f is needed" % (mean, count, kind, CLOSE_MEAN[kind]))
        # Boxes that only the other one found are as wrong as ours that it lacks.
        if abs(len(theirs[kind]) - count) > 0.2 * count + 1:
            wrong.append("%d %s against our %d" % (len(theirs[kind]), kind, count))
    return result, wrong
