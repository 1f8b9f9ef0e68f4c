/** The line chart of the last minutes, the small ones in the table, and which instrument is looked at. */

import {byId, figures, grouped, make, mark, put, putDigits} from './dom.js';
import {books, days, now, prices, ranked, WINDOW_MS} from './market.js';

const LEAST_MS = 60_000;
const PAD = {top: 14, right: 84, bottom: 24, left: 2};
const MOST_LINES = 40;
const MOST_DECIMALS = 30;
const MINUTES_MS = [15_000, 30_000, 60_000];

const choice = byId('instrument');
const bookChoice = byId('book-instrument');
const canvas = byId('chart-canvas');
const dark = matchMedia('(prefers-color-scheme: dark)');
let chosen = false;
let colours = null;
let redraw = () => {};

export const selected = () => choice.value;

export const bookInstrument = () => bookChoice.value;

/** Look at this instrument, in the book too where there is one. */
export function select(instrument) {
  chosen = true;
  choice.value = instrument;
  if (books.has(instrument)) bookChoice.value = instrument;
  redraw();
}

export function setUpChart(touch) {
  redraw = () => ['prices', 'chart', 'book'].forEach(touch);
  choice.onchange = () => select(choice.value);
  bookChoice.onchange = () => {
    chosen = true;
    redraw();
  };
  dark.onchange = () => {
    colours = null;
    ['chart', 'sparks'].forEach(touch);
  };
  new ResizeObserver(() => touch('chart')).observe(canvas);
}

/** What can be chosen; until somebody chooses, it is the first. */
export function fillInstruments() {
  const names = [...new Set(ranked().map(({instrument}) => instrument))];
  fill(choice, names);
  fill(bookChoice, names.filter((name) => books.has(name)));
}

function fill(list, names) {
  const {value} = list;
  list.replaceChildren(...names.map((name) => new Option(name)));
  list.value = chosen ? value : names[0];
}

function blank(element) {
  const {clientWidth: width, clientHeight: height} = element;
  if (!width) return null;
  const scale = devicePixelRatio || 1;
  const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
  if (element.width !== w || element.height !== h) Object.assign(element, {width: w, height: h});
  const pen = element.getContext('2d');
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.lineJoin = 'round';
  return {pen, width, height};
}

function palette() {
  if (!colours) {
    const style = getComputedStyle(document.body);
    const of = (name) => style.getPropertyValue(`--${name}`).trim();
    colours = {
      lines: [of('accent'), of('second'), of('muted')], wash: of('accent-wash'), grid: of('line'),
      text: of('muted'), surface: of('surface'), font: `12px ${style.fontFamily}`,
    };
  }
  return colours;
}

/** One line. Where messages are missing, and nothing is known, it is dashed. */
function trace(pen, series, x, y) {
  pen.beginPath();
  const missing = [];
  series.forEach((bucket, at) => {
    const left = x(bucket.from);
    if (bucket.broken && at) missing.push([series[at - 1], bucket]);
    if (!at || bucket.broken) pen.moveTo(left, y(bucket.low));
    if (bucket.low !== bucket.high) {
      pen.lineTo(left, y(bucket.low));
      pen.lineTo(left, y(bucket.high));
    }
    pen.lineTo(x(bucket.at), y(bucket.last));
  });
  pen.stroke();
  pen.setLineDash([2, 5]);
  pen.beginPath();
  for (const [before, after] of missing) {
    pen.moveTo(x(before.at), y(before.last));
    pen.lineTo(x(after.from), y(after.low));
  }
  pen.stroke();
  pen.setLineDash([]);
}

/** Steps of 1, 2 or 5 times a power of ten: about `count` of them in `range`. */
function niceStep(range, count) {
  const power = 10 ** Math.floor(Math.log10(range / count));
  return power * [1, 2, 5, 10].find((factor) => factor * power * count >= range);
}

/** The multiples of `step` between two prices, counted: added to a large number, a fine step may change nothing. */
function multiples(low, high, step) {
  const first = Math.ceil(low / step);
  const count = Math.min(Math.ceil(high / step) - first, MOST_LINES);
  return Array.from({length: Math.max(0, count || 0)}, (_, at) => (first + at) * step);
}

function visible(instrument, from) {
  return ranked()
    .filter((price) => price.instrument === instrument)
    .map((price) => ({...price, series: price.series.filter(({at}) => at >= from)}))
    .filter(({series}) => series.length)
    .sort((a, b) => b.series.length - a.series.length);
}

export function drawChart() {
  const instrument = selected();
  const end = now();
  const lines = visible(instrument, end - WINDOW_MS);
  describeChart(instrument, lines);
  const sheet = blank(canvas);
  if (!sheet || !lines.length) return;
  const {pen, width, height} = sheet;
  const {lines: strokes, wash, grid, text, surface, font} = palette();
  const all = lines.flatMap(({series}) => series);
  const start = Math.max(end - WINDOW_MS, Math.min(end - LEAST_MS, ...lines.map(({series}) => series[0].from)));
  let low = all.reduce((least, {low}) => Math.min(least, low), Infinity);
  let high = all.reduce((most, {high}) => Math.max(most, high), -Infinity);
  const margin = (high - low) * 0.08 || Math.abs(high) * 0.0001 || 1;
  [low, high] = [low - margin, high + margin];
  const [right, bottom] = [width - PAD.right, height - PAD.bottom];
  const x = (ms) => PAD.left + ((ms - start) / (end - start)) * (right - PAD.left);
  const y = (price) => bottom - ((price - low) / (high - low)) * (bottom - PAD.top);

  pen.font = font;
  pen.lineWidth = 1;
  pen.strokeStyle = grid;
  pen.fillStyle = text;
  pen.textBaseline = 'middle';
  const step = niceStep(high - low, Math.max(3, Math.floor(height / 64)));
  const decimals = Math.min(MOST_DECIMALS, Math.max(0, -Math.floor(Math.log10(step))));
  const newest = lines[0].series.at(-1);
  pen.beginPath();
  for (const price of multiples(low, high, step)) {
    pen.moveTo(PAD.left, Math.round(y(price)) + 0.5);
    pen.lineTo(right, Math.round(y(price)) + 0.5);
    if (Math.abs(y(price) - y(newest.last)) > 16) pen.fillText(grouped(price.toFixed(decimals)), right + 10, y(price));
  }
  pen.stroke();
  pen.textAlign = 'center';
  const apart = MINUTES_MS.find((ms) => ((end - start) / ms) * 64 < right) ?? WINDOW_MS;
  for (let at = Math.ceil(start / apart) * apart; at < end; at += apart) {
    const time = new Date(at).toLocaleTimeString('en-GB', apart < 60_000 ? {} : {hour: '2-digit', minute: '2-digit'});
    if (x(at) > 28 && x(at) < right - 16) pen.fillText(time, x(at), height - 9);
  }
  pen.textAlign = 'left';

  for (const [at, {series}] of [...lines.entries()].reverse()) {
    pen.lineWidth = at ? 1.25 : 1.75;
    pen.strokeStyle = strokes[Math.min(at, strokes.length - 1)];
    trace(pen, series, x, y);
  }
  const {series} = lines[0];
  pen.beginPath();
  pen.moveTo(x(series[0].from), bottom);
  for (const bucket of series) pen.lineTo(x(bucket.at), y(bucket.last));
  pen.lineTo(x(newest.at), bottom);
  const fade = pen.createLinearGradient(0, PAD.top, 0, bottom);
  fade.addColorStop(0, wash);
  fade.addColorStop(1, 'transparent');
  pen.fillStyle = fade;
  pen.fill();

  pen.fillStyle = strokes[0];
  pen.beginPath();
  pen.arc(x(newest.at), y(newest.last), 3, 0, 7);
  pen.roundRect(right + 4, y(newest.last) - 10, PAD.right - 4, 20, 4);
  pen.fill();
  pen.fillStyle = surface;
  pen.fillText(grouped(lines[0].digits.replace(/\.?0+$/, '')), right + 10, y(newest.last) + 0.5, PAD.right - 16);
}

/** The same in words. */
function describeChart(instrument, lines) {
  const [first] = lines;
  const said = lines.map(({exchange, series, digits}) => {
    const low = series.reduce((a, b) => (b.low < a.low ? b : a)).lowDigits;
    const high = series.reduce((a, b) => (b.high > a.high ? b : a)).highDigits;
    return `${exchange}: low ${grouped(low)}, high ${grouped(high)}, last ${grouped(digits)}`;
  });
  const caption = byId('chart-text');
  while (caption.children.length <= said.length) caption.append(make('span'));
  const texts = [said.length ? `${instrument}, last ${WINDOW_MS / 60_000} min.` : 'No prices yet.', ...said];
  [...caption.children].forEach((part, at) => put(part, texts[at] ?? ''));
  const last = byId('chart-last');
  if (first) putDigits(last, first.digits);
  mark(last, 'data-move', first?.move || null);
  const day = days.get(instrument);
  showDay(day ? Object.keys(DAY) : [], ({value}, name) => putDigits(value, day[DAY[name]] ?? ''));
}

const DAY = {'24 h high': 'highPrice', '24 h low': 'lowPrice', 'Volume': 'volume'};
const showDay = figures(byId('chart-day'));

export function drawSparks() {
  const end = now();
  for (const element of document.querySelectorAll('canvas.spark')) {
    const price = prices.get(element.dataset.key);
    const sheet = blank(element);
    if (!sheet || !price?.series.length) continue;
    const {pen, width, height} = sheet;
    const series = price.series.filter(({at}) => at >= end - WINDOW_MS);
    if (!series.length) continue;
    const start = Math.min(end - LEAST_MS, series[0].from);
    const low = Math.min(...series.map(({low}) => low));
    const high = Math.max(...series.map(({high}) => high));
    const x = (ms) => 1 + ((ms - start) / (end - start)) * (width - 2);
    const y = (value) => (high > low ? height - 3 - ((value - low) / (high - low)) * (height - 6) : height / 2);
    pen.lineWidth = 1.25;
    pen.strokeStyle = palette().lines[0];
    trace(pen, series, x, y);
  }
}
