// The chart of what is looked at: lines or candles over a range of time, volume below, the same in words and as a table.

import {since} from './candles.js';
import {label, rule, scale, sheet} from './canvas.js';
import {chosen, instrument, LIVE, range, RANGES_MS, shownPrice, style, title, venue} from './choice.js';
import {colour} from './colours.js';
import {aim} from './crosshair.js';
import {byId, figures, make, mark, put, putDigits, rows} from './dom.js';
import {days, local, now, ranked, WINDOW_MS} from './market.js';
import {clock, plain, ticks} from './numbers.js';
import {touchNow, view} from './paint.js';
import {trace} from './trace.js';

const LEAST_MS = 60_000;
const PAD = {top: 14, right: 88, bottom: 24, left: 2};
const MINUTE_MS = 60_000;
const narrow = matchMedia('(max-width: 640px)');
const SPANS = {'5m': '5 min', '1h': 'hour', '1d': 'day'};
const RULERS_MS = [15_000, 30_000, 60_000, 600_000, 900_000, 3_600_000, 3 * 3_600_000, 6 * 3_600_000];
const STROKES = ['accent', 'second', 'muted'];
const VOLUME = 0.18; // of the height
const MOST_LINES = 60; // of the table

const paper = sheet(byId('chart-canvas'), 'chart');

// Of each venue the prices of the last minutes, the chosen venue's first.
function priceLines(end) {
  const first = shownPrice();
  return ranked()
    .filter((row) => row.instrument === instrument())
    .sort((a, b) => (b === first) - (a === first))
    .map(({exchange, series}) => ({exchange, series: series.filter(({at}) => at >= end - WINDOW_MS)}))
    .filter(({series}) => series.length);
}

// What is to be drawn: lines, or candles, and the volume of each span of time.
function content() {
  const end = now();
  const span = RANGES_MS[range()];
  const step = range() === '1d' ? (narrow.matches ? 30 : 15) * MINUTE_MS : MINUTE_MS; // more could not be told apart
  const bars = since(end - span, step).map(({start, end, ...one}) => ({start: local(start), end: local(end), ...one}));
  if (style() === 'candles') return {start: end - span, end, lines: [], candles: bars, bars};
  if (range() !== LIVE) {
    const series = bars.map(({end: until, close}) => {
      const at = Math.min(until, end); // the newest is not yet over
      return {from: at, at, low: close, high: close, last: close};
    });
    return {start: end - span, end, lines: series.length ? [{exchange: venue(), series}] : [], candles: [], bars};
  }
  const lines = priceLines(end);
  // A chart that has just begun is not drawn into the last inch.
  const start = Math.max(end - span, Math.min(end - LEAST_MS, ...lines.map(({series}) => series[0].from)));
  return {start, end, lines, candles: [], bars: bars.filter((bar) => bar.end > start)};
}

view('chart', () => {
  const shown = content();
  const {start, end, lines, candles, bars} = shown;
  describe(shown);
  const sheet = paper();
  if (!sheet) return;
  const {pen, width, height} = sheet;
  const all = [...lines.flatMap(({series}) => series), ...candles];
  if (!all.length) return aim(null);
  const [least, most] = [Math.min(...all.map(({low}) => low)), Math.max(...all.map(({high}) => high))];
  const margin = (most - least) * 0.08 || Math.abs(most) * 0.0001 || 1;
  const [low, high] = [least - margin, most + margin];
  const [right, bottom] = [width - PAD.right, height - PAD.bottom];
  const x = scale(PAD.left, right, start, end);
  const hasVolume = bars.some(({volume}) => volume > 0);
  const y = scale(hasVolume ? bottom * (1 - VOLUME) : bottom, PAD.top, low, high);

  const newest = candles.at(-1)?.close ?? lines[0].series.at(-1).last;
  drawRulers(pen, {x, y, low, high, right, height, start, end, newest});
  drawVolume(pen, bars, x, bottom, right);
  pen.save();
  pen.beginPath();
  pen.rect(0, 0, right, height);
  pen.clip();
  if (candles.length) drawCandles(pen, candles, x, y);
  else drawLines(pen, lines, x, y, bottom);
  pen.restore();

  label(pen, plain(newest), right + 10, y(newest), PAD.right - 10, 'accent');
  aim({x, y, low, high, right, bottom, height, width, points: points(shown), decimals: shownPrice()?.decimals ?? 2});
});

function drawRulers(pen, {x, y, low, high, right, height, start, end, newest}) {
  const prices = ticks(low, high, Math.max(3, Math.floor(height / 44)));
  rule(pen, PAD.left, right, prices.map(([price]) => y(price)));
  pen.fillStyle = colour('muted');
  for (const [price, words] of prices) {
    if (Math.abs(y(price) - y(newest)) > 16) pen.fillText(words, right + 10, y(price), PAD.right - 14);
  }
  const apart = RULERS_MS.find((ms) => ((end - start) / ms) * 64 < right) ?? RULERS_MS.at(-1);
  const zone_ms = new Date(end).getTimezoneOffset() * 60_000;
  pen.textAlign = 'center';
  for (let at = Math.ceil((start - zone_ms) / apart) * apart + zone_ms; at < end; at += apart) {
    if (x(at) > 28 && x(at) < right - 16) pen.fillText(clock(at, apart < 60_000), x(at), height - 9);
  }
  pen.textAlign = 'left';
}

function drawVolume(pen, bars, x, bottom, right) {
  const most = Math.max(...bars.map(({volume}) => volume));
  if (!(most > 0)) return;
  const room = bottom * VOLUME - 8;
  for (const {start, end, volume, open, close} of bars) {
    const [from, to] = [Math.max(PAD.left, x(start) + 1), Math.min(right, x(end) - 1)];
    const tall = (volume / most) * room;
    pen.fillStyle = colour(close < open ? 'down-wash' : 'up-wash');
    if (to > from) pen.fillRect(from, bottom - tall, to - from, tall);
  }
}

function drawCandles(pen, candles, x, y) {
  for (const {start, end, open, high, low, close} of candles) {
    const [from, to] = [x(start), x(end)];
    const room = Math.max(1, (to - from) * 0.7);
    const middle = (from + to) / 2;
    pen.strokeStyle = pen.fillStyle = colour(close < open ? 'down' : 'up');
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(middle, y(high));
    pen.lineTo(middle, y(low));
    pen.stroke();
    const top = Math.min(y(open), y(close));
    const tall = Math.max(1, Math.abs(y(open) - y(close)));
    // One that has risen is hollow, so that the colour is not all there is.
    if (close < open || room < 4) pen.fillRect(middle - room / 2, top, room, tall);
    else {
      pen.fillStyle = colour('surface');
      pen.fillRect(middle - room / 2, top, room, tall);
      pen.strokeRect(middle - room / 2, top, room, tall);
    }
  }
}

function drawLines(pen, lines, x, y, bottom) {
  for (const [at, {series}] of [...lines.entries()].reverse()) {
    pen.lineWidth = at ? 1.25 : 1.75;
    pen.strokeStyle = colour(STROKES[Math.min(at, STROKES.length - 1)]);
    trace(pen, series, x, y);
  }
  const {series} = lines[0];
  const fade = pen.createLinearGradient(0, PAD.top, 0, bottom);
  fade.addColorStop(0, colour('accent-wash'));
  fade.addColorStop(1, 'transparent');
  pen.fillStyle = fade;
  pen.beginPath();
  pen.moveTo(x(series[0].from), bottom);
  for (const bucket of series) pen.lineTo(x(bucket.at), y(bucket.last));
  pen.lineTo(x(series.at(-1).at), bottom);
  pen.fill();
}

// What the crosshair says at a time: oldest first.
function points({lines, candles}) {
  if (candles.length) {
    return candles.map(({start, end, open, high, low, close, volume}) => ({
      at: (start + end) / 2,
      price: close,
      said: [clock(start), ...named({open, high, low, close, volume})],
    }));
  }
  const [first, ...others] = lines;
  const places = others.map(() => 0);
  return first.series.map(({at, last}) => ({
    at,
    price: last,
    get said() {
      const beside = others.map(({exchange, series}) => {
        const then = series.findLast((bucket) => bucket.from <= at);
        return then && `${exchange} ${plain(then.last)}`;
      });
      return [clock(at, true), `${first.exchange} ${plain(last)}`, ...beside.filter(Boolean)];
    },
  }));
}

const named = (values) => Object.entries(values).map(([name, value]) => `${name} ${plain(short(value))}`);

// Sums of volumes are no longer anybody's digits.
const short = (value) => (typeof value === 'number' ? String(Number(value.toPrecision(12))) : value);

// The same in words.
function describe({lines, candles, bars}) {
  const price = shownPrice();
  const last = byId('chart-last');
  putDigits(last, price?.digits);
  mark(last, 'data-move', price?.move || null);
  const day = days.get(instrument());
  showDay(day ? Object.keys(DAY) : [], ({value}, name) => putDigits(value, day[DAY[name]]));
  title();

  const said = candles.length ? [[venue(), candles]] : lines.map(({exchange, series}) => [exchange, series]);
  const lows = said.map(([exchange, series]) => {
    const low = series.reduce((a, b) => (b.low - a.low < 0 ? b : a)).low;
    const high = series.reduce((a, b) => (b.high - a.high > 0 ? b : a)).high;
    const {close, last} = series.at(-1);
    return `${exchange}: low ${plain(low)}, high ${plain(high)}, last ${plain(close ?? last)}`;
  });
  const volume = bars.reduce((sum, bar) => sum + bar.volume, 0);
  const texts = said.length
    ? [`${instrument()}, last ${SPANS[range()]}.`, ...lows]
    : [chosen('candle') && range() !== LIVE ? `${instrument()}: candles are on their way.` : 'No prices yet.'];
  if (volume > 0) texts.push(`volume at ${venue()} ${plain(short(volume))}`);
  showCaption([...texts.keys()], ({element}, at) => {
    put(element, texts[at]);
    mark(element, 'data-line', !candles.length && at >= 1 && at <= lines.length ? STROKES[Math.min(at, 3) - 1] : null);
  });
  if (byId('chart-table').open) fillTable({lines, candles, bars});
}

const DAY = {'24 h high': 'highPrice', '24 h low': 'lowPrice', 'Volume': 'volume'};
const showCaption = rows(byId('chart-text'), () => ({element: make('span')}));
const showDay = figures(byId('chart-day'));

const COLUMNS = ['low', 'high', 'last', 'volume'];
const showLines = rows(byId('chart-rows'), () => {
  const cells = COLUMNS.map(() => make('td'));
  const time = make('th');
  time.scope = 'row';
  return {element: make('tr', '', time, ...cells), time, cells};
});

function fillTable({lines, candles, bars}) {
  const made = bars.map(({start, low, high, close, volume}) => ({at: start, low, high, last: close, volume: short(volume)}));
  const spans = made.length ? made : (lines[0]?.series ?? []).map(({from, low, high, last}) => ({at: from, low, high, last}));
  const newest = spans.slice(-MOST_LINES).reverse();
  showLines([...newest.keys()], (row, at) => {
    put(row.time, clock(newest[at].at, !bars.length));
    COLUMNS.forEach((name, column) => putDigits(row.cells[column], newest[at][name]));
  });
}

byId('chart-table').ontoggle = () => touchNow('chart');
