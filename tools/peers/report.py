"""A measurement as Markdown and as SVG."""


def quantile(values, q):
    """Nearest rank, as frcnn bench takes it."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(q * 1000) * len(ordered) // 1000) - 1))]


def agreement(row):
    if row["parity"] is None:
        return "what the others are compared with"
    return ", ".join("%d %s, mean IoU %.4f" % (p["compared"], kind, p["mean_iou"]) for kind, p in row["parity"].items())


def markdown(record):
    base = next((r for r in record["rows"] if r["id"] == record["ratio_to"]), None)
    lines = ["# Beside other programs", "",
             "%s; network input %dx%d, %d threads. %s, %s cores, oneDNN %s with %s. Commit %s." % (
                 record["model"], record["height"], record["width"], record["threads"], record["machine"]["processor"],
                 record["machine"]["cores"], record["machine"]["onednn"], record["machine"]["onednn_isa"],
                 record["commit"]), "",
             "    " + record["command"], "",
             "One image each in turn, %d rounds after %d that are not counted." % (record["rounds"], record["warmup"]), "",
             "| program | precision | median | p90 | least | ratio | compared with frcnn fp32 |", "|---|---|---|---|---|---|---|"]
    for row in record["rows"]:
        ratio = "%.3f" % (row["median_ms"] / base["median_ms"]) if base else "-"
        lines.append("| %s | %s | %.1f ms | %.1f ms | %.1f ms | %s | %s |" % (
            row["name"], row["precision"], row["median_ms"], quantile(row["samples_ms"], 0.9), min(row["samples_ms"]), ratio,
            agreement(row)))
    if base:
        lines += ["", "The ratio is to the median of %s." % base["name"]]
    lines += ["%s: not measured, %s." % (name, why) for name, why in record["absent"]]
    return "\n".join(lines) + "\n"


def table(header, rows):
    """Lines of a Markdown table; cells are text."""
    return ["| %s |" % " | ".join(cells) for cells in [header, ["---"] * len(header), *rows]]


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def bars(title, rows, digits):
    """SVG: one bar a row of (label, value, ours, floor), on one scale from zero; a line stands at the floor, where there is
    one."""
    left, width, step = 470, 330, 30
    most = max(value for _, value, _, _ in rows)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">' % (
        left + width + 90, step * len(rows) + 44),
        '<rect width="100%" height="100%" fill="white"/>', '<text x="10" y="20">%s</text>' % escaped(title)]
    for i, (label, value, mine, floor) in enumerate(rows):
        y, size = 34 + step * i, max(1.0, width * value / most)
        out += ['<text x="%d" y="%d" text-anchor="end">%s</text>' % (left - 8, y + 15, escaped(label)),
                '<rect x="%d" y="%d" width="%.1f" height="20" fill="%s"/>' % (left, y, size,
                                                                              "#2b6cb0" if mine else "#a0aec0")]
        if floor is not None:
            out.append('<rect x="%.1f" y="%d" width="2" height="24" fill="#c05621"/>' % (left + width * floor / most, y - 2))
        out.append('<text x="%.1f" y="%d">%.*f</text>' % (left + size + 6, y + 15, digits, value))
    return "\n".join(out + ["</svg>"]) + "\n"


def svg(record):
    return bars("%s, %dx%d, %d threads: milliseconds an image, median" % (
        record["title"], record["height"], record["width"], record["threads"]),
        [("%s, %s" % (row["name"], row["precision"]), row["median_ms"], row["id"].startswith("frcnn"), None)
         for row in record["rows"]], 0)
