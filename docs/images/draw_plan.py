#!/usr/bin/env python3
"""Draws a model's memory plan: frcnn inspect MODEL --input HxW --json | docs/images/draw_plan.py > plan.svg

Left to right the nodes in run order, bottom to top the arena; a buffer is a box over the nodes during which it lives.
Buffers too small to see are left out.
"""
import html
import json
import sys

FILL = {"preprocess": "#f2f2f2", "backbone": "#dbe9f6", "rpn": "#e2f0d9", "proposals": "#fff2cc", "head": "#f8e0d8"}
COLUMN, HEIGHT, LEFT, TOP, BOTTOM = 34, 360, 64, 16, 104

report = json.load(sys.stdin)
layers, memory = report["layers"], report["memory"]
arena = memory["arena_bytes"]
width = LEFT + COLUMN * (len(layers) + 1) + 16


def y(offset):
    return TOP + HEIGHT * (1 - offset / arena)


out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{TOP + HEIGHT + BOTTOM}" '
       'font-family="Helvetica, Arial, sans-serif" font-size="10">',
       '<rect width="100%" height="100%" fill="white"/>']
for mib in range(0, int(arena / 2**20) + 1, 10):
    at = y(mib * 2**20)
    out.append(f'<path d="M{LEFT} {at:.1f}H{width - 16}" stroke="#dddddd"/>'
               f'<text x="{LEFT - 6}" y="{at + 3:.1f}" text-anchor="end">{mib} MiB</text>')
for i, layer in enumerate(layers):
    x = LEFT + COLUMN * (i + 1.5)
    out.append(f'<text transform="translate({x + 3:.0f},{TOP + HEIGHT + 10}) rotate(90)">{html.escape(layer["layer"])}</text>')
for b in memory["buffers"]:
    first, last = b["first"] + 1, min(b["last"], len(layers) - 1) + 1
    x, w, h = LEFT + COLUMN * first, COLUMN * (last - first + 1), HEIGHT * b["bytes"] / arena
    fill = FILL[layers[max(b["first"], 0)]["stage"]] if b["first"] >= 0 else "#ffffff"
    if h < 1:
        continue
    top = y(b["offset"] + b["bytes"])
    out.append(f'<rect x="{x}" y="{top:.1f}" width="{w}" height="{h:.1f}" fill="{fill}" stroke="#555555" '
               f'stroke-width="0.6"><title>{html.escape(b["name"])}: {b["bytes"]} bytes at {b["offset"]}</title></rect>')
    if h >= 10:
        text = f'{b["name"]} {b["bytes"] / 2**20:.1f}'
        squeeze = f' textLength="{w - 6}" lengthAdjust="spacingAndGlyphs"' if len(text) * 5.4 > w - 6 else ""
        out.append(f'<text x="{x + 3}" y="{top + h / 2 + 3:.1f}"{squeeze}>{html.escape(text)}</text>')
print("\n".join(out) + "\n</svg>")
