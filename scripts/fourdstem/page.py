"""The frame of every HTML page: typography that needs no network, no script and no installed font."""

STYLE = """
:root { --ink: #1d2733; --soft: #5b6875; --line: #dde3e8; --accent: #0b5c8f; --paper: #ffffff; --tint: #f5f7f9; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
body { margin: 0; color: var(--ink); background: var(--paper); -webkit-text-size-adjust: 100%;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2.2rem 1.6rem 5rem; }
nav { padding: 1rem 1.6rem; font-size: .86rem; border-bottom: 1px solid var(--line); background: var(--tint); }
nav b { display: block; margin-bottom: .5rem; }
nav a { display: inline-block; margin: 0 1rem .25rem 0; color: var(--soft); text-decoration: none; }
nav a:hover { color: var(--accent); }
@media (min-width: 1340px) {
  nav { position: fixed; inset: 0 auto 0 0; width: 215px; padding: 2.4rem 1.2rem; border: 0; overflow: auto;
    border-right: 1px solid var(--line); }
  nav a { display: block; margin: 0 0 .45rem; }
  main { margin-left: max(245px, calc((100vw - 1180px) / 2)); }
}
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; margin: 3.2rem 0 .8rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .4rem; }
p { max-width: 76ch; margin: .5rem 0; }
p.headline { font-size: 1.12rem; line-height: 1.6; }
p.fine, .note { color: var(--soft); }
figure { margin: 1.4rem 0 2.2rem; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { max-width: 92ch; margin-top: .6rem; font-size: .89rem; line-height: 1.5; color: #38444f; }
.pass { color: #00694c; }
.declined { color: #a33c00; }
ul.warnings { list-style: none; padding: 0; margin: .6rem 0; }
ul.warnings li { margin: .45rem 0; padding: .55rem .9rem; background: #fff6ec; border-left: 4px solid #d55e00;
  max-width: 92ch; font-size: .94rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0 1.4rem; font-size: .88rem; line-height: 1.4; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1.5px solid var(--soft); }
th, td { padding: .36rem 1.1rem .36rem 0; vertical-align: top; }
td { border-bottom: 1px solid var(--line); }
td:first-child { white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
a { color: var(--accent); }
nav a, main a { text-underline-offset: 2px; }
td.tight { white-space: nowrap; }
code { font: .92em/1.4 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code.hash { font-size: .8em; color: var(--soft); overflow-wrap: anywhere; }
ol.references { font-size: .88rem; padding-left: 1.4rem; }
img.thumbnail { width: 110px; image-rendering: pixelated; display: block; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; background: var(--tint); padding: .7rem; }
.jp-RenderedHTMLCommon table, .output_area { margin: 0; }
@media print { nav { display: none; } main { max-width: none; padding: 0; } figure { break-inside: avoid; } }
"""

PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{{{title}}}}</title>
<style>{STYLE}</style>
</head>
<body>
<nav><b>{{{{title}}}}</b>
{{{{links}}}}
</nav>
<main>
{{{{body}}}}
</main>
</body>
</html>
"""
