'use strict';
// Numbers as text. A value that is not finite is null in the data.
const number = v => typeof v === 'number';
const esc = s => String(s).replace(/[&<>"]/g, c => ({'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'})[c]);
const count = n => n.toLocaleString('en-US');
function bytes(n) {
  if (!number(n)) return '–';
  let unit = -1;
  for (; n >= (unit < 0 ? 1024 : 1023.95) && unit < 5; ++unit) n /= 1024;
  let tenths = Math.round(10 * n);
  if (10 * n % 1 === 0.5 && tenths % 2) --tenths;  // a tie goes to the even digit, as in the table for a terminal
  return unit < 0 ? n + ' B' : (tenths / 10).toFixed(1) + ' ' + ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'][unit];
}
function duration(s) {
  if (!number(s) || s < 0) return '–';
  if (s < 59.95) return s.toFixed(s < 9.995 ? 2 : 1) + ' s';
  const pair = (total, per, big, small) =>
    `${Math.floor(total / per)}${big} ${String(total % per).padStart(2, '0')}${small}`;
  const seconds = Math.round(s), minutes = Math.round(s / 60);
  if (seconds < 3600) return pair(seconds, 60, 'm', 's');
  return minutes < 48 * 60 ? pair(minutes, 60, 'h', 'm') : pair(Math.round(s / 3600), 24, 'd', 'h');
}
function rounded(v) {
  if (!number(v)) return '–';
  const size = Math.abs(v);
  if (size === 0) return '0';
  if (size >= 1e-3 && size < 1e5) return v.toFixed(size >= 100 ? 1 : size >= 1 ? 3 : size >= 0.1 ? 4 : 5);
  return v.toExponential(2).replace('+', '');
}
const difference = v => (v > 0 ? '+' : '') + rounded(v);
const digits = share => (100 * share).toFixed(Math.abs(share) < 0.9995 ? 1 : 2);
const percent = share => number(share) ? digits(share) + ' %' : '–';
const interval = ([low, high], text) => number(low) ? `<small>[${text(low)}, ${text(high)}]</small>` : '';

// Tables. A cell is text, or [text, the value that it is sorted by]; a table with such cells can be sorted.
function table(heads, rows, {texts = [], marked = -1} = {}) {
  const sorts = c => rows.some(row => Array.isArray(row[c]));
  const head = (cell, c) => `<th${texts.includes(c) ? ' class="text"' : ''}>${sorts(c) ? `<button type="button">${cell}</button>` : cell}</th>`;
  const body = (cell, c) => Array.isArray(cell) ?
    `<td${texts.includes(c) ? ' class="text"' : ''} data-v="${esc(cell[1] ?? '')}">${cell[0]}</td>` :
    `<td${texts.includes(c) ? ' class="text"' : ''}>${cell}</td>`;
  return `<div class="scroll"><table>${heads.length ? `<thead><tr>${heads.map(head).join('')}</tr></thead>` : ''}
<tbody>${rows.map((row, r) => `<tr${r === marked ? ' class="marked"' : ''}>${row.map(body).join('')}</tr>\n`).join('')}</tbody></table></div>\n`;
}
function sort_by(button) {
  const th = button.closest('th'), heads = [...th.parentNode.children], c = heads.indexOf(th);
  const sign = th.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
  for (const other of heads) other.removeAttribute('aria-sort');
  th.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
  const rows = [...th.closest('table').tBodies[0].rows], key = row => row.cells[c].dataset.v ?? row.cells[c].textContent;
  // What is not there goes last, whichever way the rest is sorted.
  rows.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === '' || y === '') return (x === '') - (y === '');
    return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
  });
  th.closest('table').tBodies[0].append(...rows);
}

// Plots: inline SVG in a view of 760 by 400. The axes stand at left L, right R, top T and floor F.
const L = 84, R = 728, T = 14, F = 338;
const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
const px = v => v.toFixed(1);
// How the n-th of several series is drawn.
function style_of(n) {
  const dash = ['', '8 3', '2 2.5', '10 3 2 3'][(n + Math.floor(n / 8)) % 4];
  return {colour: `--m${n % 8}`, dash: n === 0 ? '' : dash, marker: n % 6, width: n === 0 ? 3 : 1.7};
}
const colour = style => `style="color:var(${style.colour})"`;
const path = (attributes, d, tooltip = '') => `<path ${attributes} d="${d}">${tooltip && `<title>${esc(tooltip)}</title>`}</path>`;
const line_of = (style, d, tooltip) =>
  path(`stroke-width="${style.width}" stroke-linejoin="round" stroke-dasharray="${style.dash || 'none'}"`, d, tooltip);
const polygon = corners => (x, y, r) =>
  'M' + corners.map(([dx, dy]) => `${px(x + dx * r)} ${px(y + dy * r)}`).join('L') + 'Z';
const markers = [
  (x, y, r) => `M${px(x - r)} ${px(y)}a${r} ${r} 0 1 1 ${2 * r} 0a${r} ${r} 0 1 1 ${-2 * r} 0Z`,
  polygon([[-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]]),
  polygon([[0, -1.15], [1.1, .85], [-1.1, .85]]),
  polygon([[0, -1.3], [1.1, 0], [0, 1.3], [-1.1, 0]]),
  polygon([[-.35, -1.1], [.35, -1.1], [.35, -.35], [1.1, -.35], [1.1, .35], [.35, .35],
    [.35, 1.1], [-.35, 1.1], [-.35, .35], [-1.1, .35], [-1.1, -.35], [-.35, -.35]]),
  polygon([[0, 1.15], [1.1, -.85], [-1.1, -.85]])];
const marker_of = (style, x, y, tooltip) => path('class="fill"', markers[style.marker || 0](x, y, 5.5), tooltip);
// What belongs to one series, which its entry in the legend switches off and on.
const series = (s, body) => `<g class="series${s.off ? ' quiet' : ''}" data-s="${esc(s.name)}" ${colour(s.style)}>${body}</g>`;

const superscript = e => String(e).replace(/./g, c => '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'['-0123456789'.indexOf(c)]);
const power = e => e >= 0 && e <= 5 ? count(10 ** e) : e === -1 ? '0.1' : e === -2 ? '0.01' : '10' + superscript(e);
function nice_step(span) {
  const raw = span / 6, unit = 10 ** Math.floor(Math.log10(raw));
  return unit * [1, 2, 5, 10].find(factor => factor * unit >= raw * (1 - 1e-9));
}
function tick_text(v, step) {
  const size = Math.abs(v) < step * 1e-6 ? 0 : Math.abs(v), sign = v < 0 && size ? '−' : '';
  const exponent = Math.floor(Math.log10(step) + 1e-9);
  if (size >= 1000 && Math.abs(size - Math.round(size)) < 1e-9) return sign + count(Math.round(size));
  if (step >= 1e-3) return sign + size.toFixed(Math.max(0, -exponent));
  return size ? `${sign}${Math.round(size / 10 ** exponent)}×10${superscript(exponent)}` : '0';
}
function ticks_of(axis) {
  if (axis.ticks) return axis.ticks;
  const ticks = [];
  if (!axis.log) {
    const step = nice_step(axis.high - axis.low);
    for (let i = Math.ceil(axis.low / step - 1e-9); i * step <= axis.high + step * 1e-9; ++i)
      ticks.push([i * step, (axis.text || tick_text)(i * step, step)]);
    return ticks;
  }
  const low = Math.log10(axis.low), high = Math.log10(axis.high), every = high - low > 6.5 ? 2 : 1;
  for (let e = Math.ceil(low - 1e-9); e <= high + 1e-9; ++e) if (e % every === 0) ticks.push([10 ** e, power(e)]);
  for (let e = Math.floor(low); high - low < 2.2 && e <= high; ++e) {
    for (const factor of [2, 5]) {
      const v = factor * 10 ** e;
      if (v < axis.low * (1 - 1e-9) || v > axis.high * (1 + 1e-9)) continue;
      ticks.push([v, e >= 0 && e <= 4 ? count(v) : e >= -3 && e < 0 ? v.toFixed(-e) : factor + '×' + power(e)]);
    }
  }
  return ticks;
}
// An axis that holds all values with a margin and ends at round numbers; a log axis takes the positive values only and spans nine
// decades at most, the highest ones.
function fitted(label, log, values) {
  values = values.filter(v => number(v) && (!log || v > 0));
  if (!values.length) return {label, log, low: log ? 0.1 : 0, high: 1};
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  if (!log) {
    const span = high > low ? high - low : Math.max(1e-6, Math.abs(high) * 0.1), step = nice_step(span * 1.1);
    return {label, log, low: Math.floor((low - 0.02 * span) / step) * step, high: Math.ceil((high + 0.02 * span) / step) * step};
  }
  // Ends at 1, 2 or 5 of a decade.
  const ends = [0, Math.log10(2), Math.log10(5), 1];
  const down = v => Math.floor(v) + ends.filter(e => e <= v - Math.floor(v) + 1e-9).at(-1);
  const up = v => Math.floor(v) + ends.find(e => e >= v - Math.floor(v) - 1e-9);
  const margin = 0.03 * Math.max(0.3, Math.log10(high / low)), to = up(Math.log10(high) + margin);
  let from = down(Math.log10(low) - margin);
  if (to - from < 0.6) from = to - 0.7;
  return {label, log, low: 10 ** Math.max(from, to - 9), high: 10 ** to};
}
// From 0 to 100 %, and further where values lie beyond.
const shares = (label, values) => ({label, low: Math.floor(10 * Math.min(0, ...values) + 1e-9) / 10, high: Math.ceil(10 * Math.max(1, ...values) - 1e-9) / 10,
  text: v => Math.round(100 * v) + ' %'});
// The places of values on an axis between two ends, in pixels.
function scale(axis, begin, end) {
  const f = axis.log ? Math.log10 : v => v;
  return v => begin + clamp((f(v) - f(axis.low)) / (f(axis.high) - f(axis.low)), -0.05, 1.05) * (end - begin);
}
const drawable = (axis, v) => number(v) && (!axis.log || v > 0);
const vertical_rule = x => path('class="rule"', `M${px(x)} ${T}V${F}`);

// The values behind each figure, by its title: [columns, rows].
const behind = new Map();
const name_of_file = title => title.toLowerCase().replace(/[^a-z0-9]+/g, '_');
function save(name, type, text) {
  const a = document.createElement('a');
  a.download = name;
  a.href = URL.createObjectURL(new Blob([text], {type}));
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 1000);
}
const tsv_of = ([columns, rows]) => [columns, ...rows].map(row => row.map(v => v ?? 'NA').join('\t')).join('\n') + '\n';
document.addEventListener('click', ({target}) => {
  const button = target.closest('button'), shown = button && button.closest('figure');
  if (!button) return;
  if (button.closest('th')) return sort_by(button);
  if (!shown) return;
  const title = shown.querySelector('h3').textContent;
  if (button.dataset.save === 'tsv') return save(name_of_file(title) + '.tsv', 'text/tab-separated-values', tsv_of(behind.get(title)));
  if (button.dataset.save === 'svg') {
    const svg = shown.querySelector('svg:not(.swatch)').cloneNode(true);
    svg.setAttribute('xmlns', 'http:' + '//www.w3.org/2000/svg');
    svg.insertAdjacentHTML('afterbegin', `<style>${document.querySelector('style').textContent.replace(/[<&]/g, '')}</style>`);
    return save(name_of_file(title) + '.svg', 'image/svg+xml', new XMLSerializer().serializeToString(svg));
  }
  if (!button.dataset.s) return;
  const on = button.getAttribute('aria-pressed') !== 'true';
  button.setAttribute('aria-pressed', on);
  for (const g of shown.querySelectorAll('g.series')) if (g.dataset.s === button.dataset.s) g.classList.toggle('quiet', !on);
});

// A figure of what is drawn between two axes. `legend`: the series shown, {name, style, off}; `data`: [columns, rows].
function figure(title, caption, x, y, body, legend, data, {with_markers = false, boundary = false} = {}) {
  const at_x = scale(x, L, R), at_y = scale(y, F, T), x_ticks = ticks_of(x);
  const longest = Math.max(0, ...x_ticks.map(([, text]) => text.length)), slant = x.ticks && longest * 7.4 > (R - L) / x_ticks.length - 6;
  const height = slant ? Math.max(400, F + 24 + 4.6 * longest) : 400;
  const swatch = inner => `<svg class="swatch" viewBox="0 0 34 14" aria-hidden="true">${inner}</svg>`;
  const sample = s => `<g ${colour(s.style)}>${with_markers ? marker_of(s.style, 17, 7) : line_of(s.style, 'M1 7H33')}</g>`;
  behind.set(title, data);
  return `<figure><header><h3>${title}</h3><button type="button" class="save" data-save="tsv" title="The values behind this figure">TSV</button>
<button type="button" class="save" data-save="svg" title="This figure as a file">SVG</button></header>
<svg viewBox="0 0 760 ${px(height)}" role="img" aria-label="${title}">
${ticks_of(y).map(([v, text]) => path('class="grid"', `M${L} ${px(at_y(v))}H${R}`) +
    `<text class="tick" text-anchor="end" x="${L - 8}" y="${px(at_y(v) + 4)}">${text}</text>`).join('')}
${x_ticks.map(([v, text]) => path('class="axis"', `M${px(at_x(v))} ${F}v5`) + `<text class="tick" text-anchor="${slant ? 'end' : 'middle'}"
transform="translate(${px(at_x(v))} ${F + (slant ? 14 : 20)}) rotate(${slant ? -24 : 0})">${esc(text)}</text>`).join('')}
<svg x="${L}" y="${T - 8}" width="${R - L + 8}" height="${F - T + 8}" viewBox="${L} ${T - 8} ${R - L + 8} ${F - T + 8}">${body}</svg>
${path('class="axis"', `M${L} ${T}V${F}H${R}`)}
<text text-anchor="middle" x="${(L + R) / 2}" y="${slant ? px(height - 4) : 384}">${x.label}</text>
<text text-anchor="middle" transform="translate(18 ${(T + F) / 2}) rotate(-90)">${y.label}</text></svg>
<ul class="legend">${legend.map(s => `<li><button type="button" data-s="${esc(s.name)}" aria-pressed="${!s.off}">${swatch(sample(s))}${
    esc(s.name)}</button></li>`).join('')}
${boundary ? `<li>${swatch(path('class="rule"', 'M17 0V14'))}window boundary</li>` : ''}</ul>
<figcaption>${caption}</figcaption></figure>\n`;
}
// Lines through points [x, y, low, high] with markers and intervals.
function chart(title, caption, x, y, lines, columns) {
  const at_x = scale(x, L, R), at_y = scale(y, F, T);
  // What stands out is drawn last.
  const body = [...lines].reverse().map(s => {
    const points = s.points.filter(([, v]) => drawable(y, v));
    const bars = points.map(([u, , low, high]) => number(low) && drawable(y, high) ? path('stroke-width="1.2"',
      `M${px(at_x(u))} ${px(low > 0 || !y.log ? Math.min(F, at_y(low)) : F)}V${px(Math.max(T, at_y(high)))}`) : '').join('');
    return series(s, line_of(s.style, points.map(([u, v], i) => (i ? 'L' : 'M') + `${px(at_x(u))} ${px(at_y(v))}`).join(''), s.name) + bars +
      points.map(([u, v]) => marker_of(s.style, at_x(u), at_y(v), `${s.name}: ${rounded(v)}`)).join(''));
  }).join('');
  return figure(title, caption, x, y, body, lines, [columns, lines.flatMap(s => s.points.map(p => [s.name, ...p]))], {with_markers: true});
}

// Runs of neighbours, sorted by x, that are nearer to each other than `apart`.
function groups(items, apart) {
  const runs = [];
  items.sort((a, b) => a.x - b.x).forEach((item, i) => i && item.x - items[i - 1].x < apart ? runs.at(-1).push(item) : runs.push([item]));
  return runs;
}
// Texts beside points {s, x, y, label}; where they would cover one another they are moved up and down and joined to their point by a thin line.
function labels(points) {
  for (const group of groups(points, 16)) {
    // Points side by side have their labels beside the whole group, so that no text covers a neighbour's marker.
    for (const p of group) p.text = (p.label || p.s.name).replace(/^(.{10}).{8,}(.{16})$/, '$1 … $2');
    const first = group[0].x, last = group.at(-1).x, width = p => 7.4 * p.text.length;
    const flip = last + 12 + Math.max(...group.map(width)) > R;
    for (const p of group) {
      const left = flip ? Math.max(L + 4, first - 12 - width(p)) : last + 12;
      Object.assign(p, {left, right: left + width(p), baseline: p.y + 4});
    }
  }
  points.sort((a, b) => a.y - b.y);
  // Pairs that overlap push each other apart until none do.
  for (let round = 0, moved = true; moved && round < 400; ++round) {
    moved = false;
    points.forEach((upper, i) => points.slice(i + 1).forEach(lower => {
      const overlap = upper.baseline + 15 - lower.baseline;
      if (overlap < 0.01 || upper.left > lower.right || lower.left > upper.right) return;
      upper.baseline -= overlap / 2;
      lower.baseline += overlap / 2;
      moved = true;
    }));
    for (const p of points) p.baseline = clamp(p.baseline, T + 12, F - 6);
  }
  return points.map(p => {
    const end = p.left < p.x ? p.right + 2 : p.left - 2, far = Math.abs(p.baseline - p.y - 4) > 9 || Math.abs(end - p.x) > 22;
    return series(p.s, (far ? path('class="leader"', `M${px(p.x)} ${px(p.y)}L${px(end)} ${px(p.baseline - 4)}`) : '') +
      `<text class="halo" x="${px(p.left)}" y="${px(p.baseline)}">${esc(p.text)}</text>`);
  }).join('');
}
// Of points {bytes, value}: those that another beats in both, or in one with the other equal. `sign`: -1 where more is better.
const dominated = (points, sign) => points.filter(p => points.some(q => q.bytes <= p.bytes && sign * q.value <= sign * p.value &&
  (q.bytes < p.bytes || q.value !== p.value)));
// An axis of bytes with ticks at powers of two, so that they read as KiB, MiB, GiB; what holds nothing stands at a place of its own, left of
// them. [axis, the place of 0, where the axis proper begins].
function byte_axis(label, sizes) {
  const positive = sizes.filter(size => size > 0);
  if (!positive.length) positive.push(1024);
  const low = Math.floor(Math.log2(Math.min(...positive))), high = Math.ceil(Math.log2(Math.max(...positive)) + 0.3), span = Math.max(1, high - low);
  const any_zero = sizes.includes(0), zero = 2 ** (low - 0.08 * span);
  const every = span <= 7 ? 1 : span <= 14 ? 2 : Math.ceil(span / 7), ticks = any_zero ? [[zero, '0']] : [];
  for (let e = low + (any_zero ? 1 : 0); e <= high; e += every) ticks.push([2 ** e, bytes(2 ** e)]);
  return [{label, log: true, low: 2 ** (low - (any_zero ? 0.16 * span : 0)), high: 2 ** high, ticks}, zero, any_zero ? 2 ** low : 0];
}
// What each point {s, bytes, value, interval, tooltip, label} is worth against what it holds; grey where another holds no more and is no worse.
function memory_chart(title, caption, y, points, columns, {more_is_better = false, rule = ''} = {}) {
  const [x, zero, begin] = byte_axis('bytes held of closed windows, all layers', points.map(p => p.bytes));
  const at_x = scale(x, L, R), at_y = scale(y, F, T), grey = new Set(dominated(points, more_is_better ? -1 : 1));
  for (const p of points) Object.assign(p, {x: at_x(p.bytes || zero), y: at_y(p.value), s: {...p.s, off: p.s.off || (grey.has(p) && !p.s.subject)}});
  for (const group of groups([...points], 9)) {
    const centre = (group[0].x + group.at(-1).x) / 2;
    if (group.length > 1) group.forEach((p, i) => { p.x = centre + 9 * (i - (group.length - 1) / 2); });
  }
  const cap = (p, v) => `M${px(p.x - 4)} ${px(v)}H${px(p.x + 4)}`;
  const body = points.map(p => {
    const [low, high] = p.interval || [null, null], ends = number(low) ? [low, high].map(v => drawable(y, v) ? clamp(at_y(v), T, F) : F) : null;
    return series(p.s, (ends ? path('stroke-width="1.4"', `M${px(p.x)} ${px(ends[0])}V${px(ends[1])}` + cap(p, ends[0]) + cap(p, ends[1])) : '') +
      marker_of(p.s.style, p.x, p.y, p.tooltip));
  }).join('');
  const named = points.filter(p => points.length <= 14 || (!p.s.off && !grey.has(p)));
  return figure(title, caption, x, y, (begin ? vertical_rule(at_x(begin)) : '') + rule + body + labels(named),
    points.map(({s}) => ({...s, off: points.every(p => p.s.name !== s.name || p.s.off)})).filter((s, i, all) => all.findIndex(o => o.name === s.name) === i),
    [columns, points.map(p => [p.label || p.s.name, p.bytes, p.value, ...(p.interval || [null, null]), grey.has(p) ? 'dominated' : ''])], {with_markers: true});
}
