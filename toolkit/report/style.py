"""The page's look and its one small script: sorting tables, the text of marks in charts, opening all details for print.

A datasheet: titles in the margin, hairlines, figures in columns; colour only where it means something, and always
beside a word or a sign. Text contrast is at least 4.5:1 in both schemes (WCAG 2.2, 1.4.3).
"""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--raised:#f5f6f8;--ink:#14181d;--soft:#59626d;--line:#d9dde2;
--hair:#e9ecef;
--data:#1d4f91;--pass:#17693a;--pass-bg:#e7f4ec;--fail:#a8201a;--fail-bg:#fbeae8;--unsure:#805200;
--unsure-bg:#fbf1dc;
--better:#2b8a57;--worse:#c8463c;--same:#8a939d;
--down1:#fdf0ee;--down2:#f9d8d3;--down3:#f2b3ab;--up1:#edf7f1;--up2:#d0ebdb;--up3:#a9d9bd;
--tint:#1d4f912e;--c0:#1d4f91;--c1:#b3541e;--c2:#5d6873;--c3:#7a3e8f;
--sans:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Liberation Sans",Arial,sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace}
@media screen and (prefers-color-scheme:dark){:root{--paper:#101418;--raised:#181d23;--ink:#e6e9ed;--soft:#9aa5b1;
--line:#343c46;--hair:#232a32;
--data:#86b4ef;--pass:#6fcf97;--pass-bg:#12291d;--fail:#ff9288;--fail-bg:#361917;--unsure:#eabb61;
--unsure-bg:#2f2410;
--better:#4fb57f;--worse:#e2695e;--same:#7d8792;
--down1:#2a1a1a;--down2:#4a2220;--down3:#702c28;--up1:#14241c;--up2:#183a29;--up3:#1f5539;
--tint:#86b4ef2e;--c0:#86b4ef;--c1:#eb9a63;--c2:#a5afba;--c3:#cb9adb}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0 auto;max-width:1240px;padding:0 32px 64px;background:var(--paper);color:var(--ink);
font:15px/1.5 var(--sans);overflow-wrap:anywhere}
h1,h2,p,dl,dd,figure,ul,ol{margin:0}
a{color:var(--data)}
:focus-visible{outline:2px solid var(--data);outline-offset:2px}
code,pre,.name{font-family:var(--mono);font-size:.9em}
header{display:flex;flex-wrap:wrap;gap:16px 48px;justify-content:space-between;align-items:flex-end;
padding:40px 0 20px}
header .kind{color:var(--soft);font-size:13px}
h1{font-size:30px;line-height:1.2;font-weight:600;letter-spacing:-.015em}
header dl{display:flex;flex-wrap:wrap;gap:8px 28px}
dt{color:var(--soft);font-size:12.5px}
header dd{font-size:14px;font-variant-numeric:tabular-nums}
nav{display:flex;flex-wrap:wrap;gap:4px 20px;padding:10px 0;border-top:1px solid var(--ink);font-size:13.5px}
nav a{color:var(--soft);text-decoration:none}
nav button{all:unset;cursor:pointer;color:var(--data)}nav button:hover{text-decoration:underline}
nav button:focus-visible{outline:2px solid var(--data);outline-offset:2px}
nav a:hover{color:var(--ink);text-decoration:underline}
section{display:grid;grid-template-columns:168px minmax(0,1fr);gap:12px 36px;padding:28px 0 36px;
border-top:1px solid var(--line)}
h2{font-size:16px;line-height:1.35;font-weight:600}
section:has(.body>p.quiet:only-child){padding:14px 0 16px}
.body{min-width:0}
.body>*+*{margin-top:20px}.body>details+details{margin-top:0}
dl.absent{display:grid;gap:10px}dl.absent div{display:grid;grid-template-columns:200px minmax(0,1fr);gap:0 20px}
dl.absent dt{font-size:14px}
.lead{max-width:78ch;color:var(--soft)}
#wins .lead{color:var(--ink);font-size:17px;line-height:1.45}
.quiet,small,.note{color:var(--soft)}
small{display:block;font-size:12.5px;font-weight:400;font-family:var(--sans)}
.spoken{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}

.banner{display:grid;grid-template-columns:auto 1fr;gap:4px 24px;align-items:center;padding:18px 22px;
border-left:6px solid var(--soft);background:var(--raised)}
.banner .outcome{display:flex;gap:12px;align-items:center;font-size:26px;font-weight:650;letter-spacing:-.01em}
.banner p+p{font-size:16px}
.banner .sign{display:grid;place-items:center;width:34px;height:34px;border-radius:50%;background:var(--soft);
color:var(--paper);font-size:19px;line-height:1}
.banner.pass{border-color:var(--pass);background:var(--pass-bg)}.banner.pass .outcome{color:var(--pass)}
.banner.pass .sign{background:var(--pass)}
.banner.fail,.banner.stopped{border-color:var(--fail);background:var(--fail-bg)}
.banner.fail .outcome,.banner.stopped .outcome{color:var(--fail)}
.banner.fail .sign,.banner.stopped .sign{background:var(--fail)}
.banner.inconclusive{border-color:var(--unsure);background:var(--unsure-bg)}
.banner.inconclusive .outcome{color:var(--unsure)}.banner.inconclusive .sign{background:var(--unsure)}
.badge{display:inline-flex;gap:6px;align-items:baseline;padding:1px 9px 1px 7px;border-radius:3px;
background:var(--raised);font-size:12.5px;font-weight:650;white-space:nowrap}
.badge.pass{color:var(--pass);background:var(--pass-bg)}.badge.fail{color:var(--fail);background:var(--fail-bg)}
.badge.inconclusive{color:var(--unsure);background:var(--unsure-bg)}

.scroll{position:relative;overflow-x:auto;overscroll-behavior-x:contain}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums;overflow-wrap:normal}
th,td{padding:7px 20px 7px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--hair)}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--soft);font-size:12.5px;font-weight:500;line-height:1.35;vertical-align:bottom;
border-color:var(--line);white-space:nowrap}
tbody th{font-weight:500}
td.n{white-space:nowrap}
.name{white-space:nowrap}
.why{min-width:170px}
.whys{padding:0;list-style:none}.whys li+li{margin-top:8px}
.board td>.sign{margin-right:6px;font-weight:700}.sign.pass{color:var(--pass)}.sign.fail{color:var(--fail)}
.sign.inconclusive{color:var(--unsure)}
.gates td,.gates th{padding-right:14px}.gates tr:not(.first) td{border-color:var(--hair)}
.gates .first>*{border-top:1px solid var(--line)}
.classes thead th+th{padding-left:13px}.how{min-width:280px;font-size:13px;color:var(--soft)}
th button{all:unset;cursor:pointer;border-bottom:1px dotted var(--soft)}
th button:focus-visible{outline:2px solid var(--data);outline-offset:2px}
th[aria-sort=ascending] button::after{content:" ↑"}th[aria-sort=descending] button::after{content:" ↓"}
tbody th{position:sticky;left:0;background:var(--paper)}
.origin td:not(.how,:nth-child(2),:nth-child(4)){white-space:nowrap}.origin td:nth-child(4){min-width:150px}
.source{white-space:nowrap}.source.emulated,.source.estimated,.source.quoted{color:var(--unsure);font-weight:600}

.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:20px 28px}
.figures div{padding-top:10px;border-top:2px solid var(--ink)}
.figures dd{font-size:23px;line-height:1.3;font-weight:600;letter-spacing:-.01em;font-variant-numeric:tabular-nums}
.figures dd.quiet{font-weight:400}
.figures .note{font-size:13px;font-weight:400;letter-spacing:0}

.falls th,.falls td{padding-right:18px}
.rungs th,.rungs td{padding-right:13px}.rungs .name,.rungs .n{white-space:normal}
.speeds td,.speeds th{min-width:120px}.speeds .n{min-width:0}.speeds .layers{overflow-wrap:anywhere}
.speeds b{font-weight:600;color:var(--ink)}
.falls .group th,.speeds .group th{padding-top:16px;color:var(--soft);
font-family:var(--sans);font-size:12.5px;font-weight:500;
border-color:var(--line)}
.fallen{min-width:158px}
.fallen .line{display:flex;justify-content:space-between;gap:10px;width:150px;white-space:nowrap}
.fallen .change{font-size:12.5px;color:var(--soft)}
.change.better{color:var(--pass)}.change.worse{color:var(--fail)}
.fall{display:block;width:150px;height:18px}
.fall .rail{stroke:var(--line)}.fall .value{stroke:var(--ink);stroke-width:2}
.fall .from{stroke:var(--soft);stroke-dasharray:2 2}
.step.better{fill:var(--better)}.step.worse{fill:var(--worse)}.step.same{fill:var(--same)}

.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:28px 32px}
.charts.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,280px),1fr))}
figure{min-width:0;max-width:560px}
figcaption{margin-bottom:6px;font-size:14px;font-weight:500}
.chart{display:block;width:100%;height:auto;font:11px var(--sans)}
.chart text{font-variant-numeric:tabular-nums;pointer-events:none}.chart path{stroke-linejoin:round}
.label text,.limit text{paint-order:stroke;stroke:var(--paper);stroke-width:3px}.label text{font-size:11.5px}
.mark{--glow:transparent;--ring:transparent}.mark[tabindex]{cursor:pointer}.mark:focus{outline:none}
.mark:focus-visible,.mark.told{--glow:var(--tint);--ring:var(--data)}
figure{position:relative}
.tip{position:absolute;z-index:2;max-width:min(280px,100%);padding:8px 11px;background:var(--ink);color:var(--paper);
font-size:12.5px;line-height:1.4;border-radius:4px;white-space:pre-line;overflow-wrap:anywhere}
.legend{display:flex;flex-wrap:wrap;gap:2px 20px;font-size:13px;color:var(--soft)}
.legend span{display:inline-flex;gap:6px;align-items:center}
.key{flex:none;height:16px}

.shots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,290px),1fr));gap:18px 28px;padding:0;
list-style:none}
.shots>li{display:grid;grid-template-columns:96px minmax(0,1fr);gap:0 14px;align-items:start;font-size:13.5px;
break-inside:avoid}
.shots>li>div:only-child{grid-column:1/-1}
.shots img{width:96px;height:96px;object-fit:contain;background:var(--raised)}
.shots img.png{image-rendering:pixelated}
.shots ul{padding:0;list-style:none}
.shots ul li{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 10px}
.shots .name{white-space:normal;font-size:12px}.decision{font-variant-numeric:tabular-nums}
.shots .sign{margin-right:5px;font-weight:700}.sign.right{color:var(--pass)}.sign.wrong{color:var(--fail)}
.shots small{overflow-wrap:anywhere}
.caption{font-size:14px;font-weight:500}
.caption+.scroll{margin-top:6px}
.metrics td small{white-space:nowrap}.metrics th,.metrics td{padding-right:14px}
.metrics thead th{white-space:normal;min-width:64px}
.matrices{grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr))}

.heat{padding-left:10px;border-left:3px solid var(--paper)}
.heat small,.heat .change{display:inline;margin-left:8px;font-size:12.5px}
.heat small,.heat .change{color:var(--ink)}
.equal th,.equal td{padding-right:8px}.equal td{font-size:13px}.equal .heat{padding-left:7px}
.equal thead th+th,.equal td.quiet{padding-left:10px}.equal .heat small{font-size:11.5px}
.equal tbody th{white-space:normal;min-width:120px;max-width:150px;overflow-wrap:anywhere}
.equal .heat small{display:block;margin-left:0}
.down1{background:var(--down1)}.down2{background:var(--down2)}.down3{background:var(--down3)}
.up1{background:var(--up1)}.up2{background:var(--up2)}.up3{background:var(--up3)}

details{border-top:1px solid var(--hair)}
details+details{margin-top:0}
details:last-of-type{border-bottom:1px solid var(--hair)}
summary{padding:9px 0;cursor:pointer}
summary b{margin-right:18px;font:500 13px var(--mono)}
summary span+span{margin-left:18px}
details>*:not(summary){margin:4px 0 14px 17px}
tr.kept td,tr.kept th{color:var(--soft)}
#again td code{white-space:nowrap}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,190px),1fr));gap:10px 24px}
.pairs dd{font-size:14px}
.warnings{padding:12px 16px 12px 34px;background:var(--unsure-bg);border-left:4px solid var(--unsure)}
.notes{padding-left:18px;color:var(--soft)}
pre{margin:0;padding:14px 16px;background:var(--raised);line-height:1.55;overflow-wrap:normal;width:max-content;
min-width:100%}
#again pre{width:auto;white-space:pre-wrap;overflow-wrap:anywhere}
ol{padding-left:20px}
footer{padding-top:16px;border-top:1px solid var(--ink);color:var(--soft);font-size:13px}

@media (max-width:820px){body{padding:0 16px 40px}header{padding-top:24px}h1{font-size:25px}
section{grid-template-columns:minmax(0,1fr);padding:22px 0 28px}h2{font-size:18px}
.banner{grid-template-columns:1fr;padding:14px 16px}
.figures{grid-template-columns:repeat(2,minmax(0,1fr));gap:18px 16px}
.figures dd{font-size:19px}#wins .lead{font-size:16px}}
@media screen and (max-width:820px){.why,.speeds td:nth-child(3){min-width:220px}.speeds tbody th{position:static}}
@media print{:root{color-scheme:light;--paper:#fff;--raised:#fff;--ink:#000;--soft:#444;--line:#bbb;--hair:#ddd}
@page{margin:14mm}
body{max-width:none;padding:0;font-size:10pt}nav{display:none}
section{grid-template-columns:minmax(0,1fr);gap:6px;padding:12px 0}
h2{break-after:avoid}figure,tr,.shots>li,.banner,.figures{break-inside:avoid}.scroll{overflow:visible}table{font-size:8pt}
small,.badge,thead th,.fallen .change,.heat small,.heat .change{font-size:7.5pt!important}
td small{padding:0}th,td,td .name,th .name,td small{white-space:normal!important;overflow-wrap:break-word}
th,td{padding-right:8px}
td code,th.name,.layers{overflow-wrap:anywhere}th.name{min-width:76px}
.why,.how,.metrics thead th,.speeds td,.speeds th{min-width:0}
.fallen{min-width:112px}.fall,.fallen .line{width:108px}.fallen .line{white-space:normal;flex-wrap:wrap;gap:0 6px}
.charts{grid-template-columns:1fr 1fr}.charts.small,.matrices{grid-template-columns:1fr 1fr 1fr}.tip{display:none}
.speeds .layers{min-width:96px}.equal td,.equal .heat,.classes .heat{font-size:6.5pt;padding:4px 2px}
.classes td,.classes .heat *{margin-left:3px}.equal .heat small{font-size:5.5pt!important;white-space:nowrap!important}
pre{white-space:pre-wrap;width:auto}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""

SCRIPT = """
for (const button of document.querySelectorAll('th button')) button.addEventListener('click', () => {
  const th = button.parentElement, body = th.closest('table').tBodies[0], column = th.cellIndex;
  const up = th.getAttribute('aria-sort') !== 'ascending';
  const key = row => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent; };
  const order = (a, b) => { const x = key(a), y = key(b), d = Number(x) - Number(y);
    return (Number.isNaN(d) ? x.localeCompare(y, 'en', {numeric: true}) : d) * (up ? 1 : -1); };
  for (const other of th.parentElement.cells) other.removeAttribute('aria-sort');
  th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  body.append(...[...body.rows].sort(order));
});
const tip = document.createElement('div');
tip.className = 'tip'; tip.setAttribute('aria-hidden', 'true'); tip.hidden = true;
let told = null;
const hush = () => { if (told) { told.mark.classList.remove('told'); told.title.textContent = told.text; }
  tip.hidden = true; told = null; };
const tell = target => {
  const mark = target.closest && target.closest('svg.chart g'), title = mark && mark.querySelector(':scope > title');
  const figure = title && mark.closest('figure');
  if (!figure || (told && told.mark === mark)) return;
  hush();
  told = {mark, title, text: title.textContent};
  tip.textContent = told.text; title.textContent = ''; mark.classList.add('told'); tip.hidden = false;
  figure.append(tip);
  const box = figure.getBoundingClientRect(), at = mark.getBoundingClientRect(), above = at.top - box.top - 6;
  const left = (at.left + at.right) / 2 - box.left - tip.offsetWidth / 2;
  tip.style.left = Math.max(0, Math.min(left, box.width - tip.offsetWidth)) + 'px';
  tip.style.top = (above < tip.offsetHeight ? at.bottom - box.top + 6 : above - tip.offsetHeight) + 'px';
};
for (const kind of ['pointerover', 'focusin', 'click']) document.addEventListener(kind, event => tell(event.target));
document.addEventListener('focusout', hush);
document.addEventListener('keydown', event => { if (event.key === 'Escape') hush(); });
document.addEventListener('pointerdown', event => { if (!event.target.closest('svg.chart g, .tip')) hush(); });
for (const each of document.querySelectorAll('figure')) each.addEventListener('pointerleave', hush);
const folded = document.querySelectorAll('details'), all = document.createElement('button');
all.type = 'button'; all.textContent = 'Unfold all';
all.addEventListener('click', () => { const open = ![...folded].every(part => part.open);
  for (const part of folded) part.open = open; all.textContent = open ? 'Fold all' : 'Unfold all'; });
if (folded.length) document.querySelector('nav').append(all);
"""
