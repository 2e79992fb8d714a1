"""What the parity gate of tools/bench_peers accepts and refuses. usage: parity_check.py TOOLS/PEERS"""
import math
import sys

sys.path.insert(0, sys.argv[1])
import parity

boxes = [[20.0 * (i % 15), 20.0 * (i // 15), 20.0 * (i % 15) + 15, 20.0 * (i // 15) + 18] for i in range(150)]
ours = {"proposals": [[1 - i / 200] + box for i, box in enumerate(boxes)],
        "detections": [[i % 3, 1 - i / 200] + box for i, box in enumerate(boxes[:40])]}


def changed(kind, change):
    result = {name: [list(row) for row in rows] for name, rows in ours.items()}
    result[kind] = [change(i, row) for i, row in enumerate(result[kind])]
    return result


def refused(what, theirs, rules=("equal", "close")):
    for rule in rules:
        if not parity.compare(ours, theirs, rule)[1]:
            sys.exit("%s: `%s` lets it pass" % (what, rule))


for rule in ("equal", "close"):
    for name, theirs in (("the same", ours), ("another order", {kind: rows[::-1] for kind, rows in ours.items()}),
                         ("a box that moved by a hundredth", changed("proposals", lambda i, row: row[:1] + [x + 0.01 for x in row[1:]]))):
        wrong = parity.compare(ours, theirs, rule)[1]
        if wrong:
            sys.exit("%s: `%s` refuses it: %s" % (name, rule, wrong))

for kind, at in (("proposals", 1), ("detections", 2)):
    refused(kind + " that are not numbers", changed(kind, lambda i, row: row[:at] + [math.nan] * 4))
    refused(kind + " with a score that is not a number", changed(kind, lambda i, row: row[:at - 1] + [math.nan] + row[at:]))
    refused(kind + " elsewhere", changed(kind, lambda i, row: row[:at] + [x + 9 for x in row[at:]]))
    refused(kind + " with other scores", changed(kind, lambda i, row: row[:at - 1] + [row[at - 1] * 0.9] + row[at:]))
    refused(kind + " with one score for all", changed(kind, lambda i, row: row[:at - 1] + [ours[kind][0][at - 1]] + row[at:]))
    refused("three %s in a hundred with a wrong score" % kind,
            changed(kind, lambda i, row: row[:at - 1] + [row[at - 1] * (0.5 if i % 33 == 0 else 1)] + row[at:]))
    rounded = changed(kind, lambda i, row: row[:at - 1] + [row[at - 1] * (0.97 if i % 2 else 1.03)] + row[at:])
    refused(kind + " with scores of bf16", rounded, ("equal",))
    wrong = parity.compare(ours, rounded, "close")[1]
    if wrong:
        sys.exit("%s with scores of bf16: `close` refuses them: %s" % (kind, wrong))
    refused("one of the %s again and again" % kind, changed(kind, lambda i, row: list(ours[kind][0])))
    refused("too few " + kind, dict(ours, **{kind: ours[kind][:19]}))
    refused("far more " + kind, dict(ours, **{kind: ours[kind] * 2}))
moved = changed("detections", lambda i, row: row[:2] + [row[2] + 0.15 * (row[4] - row[2] + 1)] + row[3:])
refused("boxes too far off to compare the scores", moved)
told = parity.compare(ours, moved, "close")[1]
if not any("too few to compare scores" in sentence for sentence in told):
    sys.exit("boxes too far off to compare the scores are refused for something else: %s" % told)
unscored = changed("proposals", lambda i, row: [None] + row[1:])
if parity.compare(ours, unscored, "close")[1]:
    sys.exit("proposals without scores: `close` refuses them")
refused("other classes", changed("detections", lambda i, row: [row[0] + 1] + row[1:]))
few = {"proposals": ours["proposals"], "detections": ours["detections"][:19]}
if not parity.compare(few, few, "equal")[1]:
    sys.exit("19 detections are enough for it")
