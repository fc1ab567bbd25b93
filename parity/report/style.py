"""How the page looks, in light and in dark."""

COLOURS = "".join(
    f".c{index} {{ stroke: var(--c{index}); }} i.c{index} {{ background: "
    f"var(--c{index}); }}\n"
    for index in range(10)
)
STYLE = (
    """
:root { color-scheme: light dark; --text: #1d2330; --soft: #5d6677; --page: #fbfbfa; --box: #fff; --rule: #d9dce2;
  --grid: #e8eaee; --good: #0b6b3a; --good-box: #e3f4ea; --bad: #a3161a; --bad-box: #fdeaea; --link: #0a58a6;
  --none: #f1f2f4; --c0: #dfe4ec; --c1: #c6dbef; --c2: #9ecae1; --c3: #6baed6; --c4: #3182bd; --c5: #08519c;
  --c6: #fdae4d; --c7: #ee6a1f; --c8: #c2181c; --c9: #5b0a2e;
  --activations: #7a5195; --loss: #1d2330; --batch_stats: #5d8a00; --grads: #0072b2; --grad_norm: #56a3d9;
  --moments: #c98a00; --updated: #d1495b; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ee; --soft: #9aa4b5; --page: #14171d; --box: #1b1f27;
  --rule: #363d4a; --grid: #2a303b; --good: #6fdc9c; --good-box: #123322; --bad: #ff8f8f; --bad-box: #3d1619;
  --link: #8cc2ff; --none: #1a1e25; --c0: #2b3342; --c1: #1f3f63; --c2: #23598c; --c3: #2f78b8; --c4: #5aa3dc;
  --c5: #a5d3f7; --c6: #b86a12; --c7: #f0853a; --c8: #ff5d5d; --c9: #ff9ee0;
  --activations: #b892d6; --loss: #e4e7ee; --batch_stats: #9ccc3c; --grads: #4aa8e8; --grad_norm: #9fd4f7;
  --moments: #f0b73c; --updated: #ff7f8f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.2rem 1rem 4rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .8rem; }
h2 { font-size: 1.08rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0 .6rem; }
a { color: var(--link); overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .9em;
  overflow-wrap: anywhere; }
pre { background: var(--box); border: 1px solid var(--rule); padding: .6rem; white-space: pre-wrap; }
small, .soft { color: var(--soft); font-size: .85em; font-weight: normal; }
.verdict { border-left: 6px solid; border-radius: 4px; padding: .7rem 1rem; font-size: 1.1rem; }
.parity { color: var(--good); background: var(--good-box); }
.divergence { color: var(--bad); background: var(--bad-box); }
.bad, .bad th { color: var(--bad); font-weight: bold; }
.bad code { font-weight: normal; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
td, th { padding: .22rem .8rem .22rem 0; border-bottom: 1px solid var(--rule); text-align: left; font-weight: inherit;
  vertical-align: top; }
thead th { color: var(--soft); font-size: .85em; }
.number { text-align: right; white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .4rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
details { margin: 0; }
summary { cursor: pointer; }
.other { margin-top: 1.5rem; }
svg path { fill: none; vector-effect: non-scaling-stroke; }
.curves { display: grid; grid-template-columns: 3.6rem 1fr; margin-top: .6rem; }
.curves svg { width: 100%; height: 17rem; background: var(--box); border: 1px solid var(--rule); overflow: visible; }
.curves .steps { grid-column: 2; }
.scale { position: relative; font-size: .75rem; color: var(--soft); }
.scale span { position: absolute; right: .4rem; transform: translateY(-50%); white-space: nowrap; }
.steps { font-size: .75rem; color: var(--soft); }
.steps span:last-child { float: right; }
.grid { stroke: var(--grid); stroke-width: 1; }
.threshold { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 6 4; }
g .line { stroke: currentColor; stroke-width: 1.7; stroke-linejoin: round; }
g .dots { stroke: currentColor; stroke-width: 5; stroke-linecap: round; }
g.grad_norm .line, g.updated .line { stroke-dasharray: 5 3; }
g.loss .line, g.batch_stats .line { stroke-dasharray: 2 3; }
.activations { color: var(--activations); }
.loss { color: var(--loss); }
.batch_stats { color: var(--batch_stats); }
.grads { color: var(--grads); }
.grad_norm { color: var(--grad_norm); }
.moments { color: var(--moments); }
.updated { color: var(--updated); }
.params, .batch, .optimizer_step, .learning_rate, .loss_scale, .skipped, .unchanged { color: var(--c9); }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; font-size: .82rem; margin: .5rem 0 .8rem; }
.legend span { white-space: nowrap; }
i.line { display: inline-block; width: 1.4rem; border-top: 3px solid; margin-right: .35rem; vertical-align: middle; }
i.grad_norm, i.updated, i.line.threshold { border-top-style: dashed; }
i.loss, i.batch_stats { border-top-style: dotted; }
i.line.threshold { color: var(--bad); }
i.cell { display: inline-block; width: 1rem; height: .8rem; margin-right: .3rem; vertical-align: -1px;
  background: var(--none); }
.heat { font-size: .8rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.row { display: grid; grid-template-columns: 15rem 1fr 7rem; gap: .6rem; align-items: center; padding: 1px 0; }
.row > span:first-child { overflow-wrap: anywhere; padding-left: 1rem; }
details > .row:not(summary) > span:first-child { padding-left: 1.8rem; }
summary.row > span:first-child::before { content: "▸"; display: inline-block; width: 1rem; margin-left: -1rem; }
details[open] > summary.row > span:first-child::before { content: "▾"; }
details[open] { padding-bottom: .5rem; }
.row svg { display: block; width: 100%; height: 1.05rem; background: var(--none); shape-rendering: crispEdges; }
.row path { vector-effect: none; stroke-width: 2; }
"""
    + COLOURS
    + """
@media (max-width: 40rem) {
  body { font-size: 15px; padding: 1rem .7rem 3rem; }
  .curves { grid-template-columns: 2.8rem 1fr; }
  .curves svg { height: 13rem; }
  .row { grid-template-columns: 8rem 1fr 4.4rem; gap: .4rem; }
  .row small { display: block; }
  details > .row:not(summary) > span:first-child { padding-left: 1.2rem; }
  dl { grid-template-columns: 1fr; }
  dd { margin: 0 0 .4rem; }
}
"""
)
