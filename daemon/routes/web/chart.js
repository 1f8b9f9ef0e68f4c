// The line chart of the last minutes, the small ones in the table, and which instrument is looked at.

import {byId, figures, make, mark, put, putDigits, rows, touch, view} from './dom.js';
import {books, days, now, prices, ranked, WINDOW_MS} from './market.js';
import {grouped, inParts, ticks} from './numbers.js';

const LEAST_MS = 60_000;
const PAD = {top: 14, right: 84, bottom: 24, left: 2};
const MINUTES_MS = [15_000, 30_000, 60_000];

const choice = byId('instrument');
const bookChoice = byId('book-instrument');
const canvas = byId('chart-canvas');
let chosen = false;

// Look at this instrument, in the book too where there is one.
export function select(instrument) {
  chosen = true;
  choice.value = instrument;
  if (books.has(instrument)) bookChoice.value = instrument;
  redraw();
}

const redraw = () => touch('live');

choice.onchange = () => select(choice.value);
bookChoice.onchange = () => {
  chosen = true;
  redraw();
};
new ResizeObserver(redraw).observe(canvas);

// What can be chosen; until somebody does, it is the first.
view('instruments', () => {
  const names = [...new Set(ranked().map(({instrument}) => instrument))];
  fill(choice, names);
  fill(bookChoice, names.filter((name) => books.has(name)));
});

function fill(list, names) {
  const {value} = list;
  list.replaceChildren(...names.map((name) => new Option(name)));
  list.value = chosen && names.includes(value) ? value : names[0];
}

function blank(element) {
  const {clientWidth: width, clientHeight: height} = element;
  if (!width) return null;
  const [x, y] = [width, height].map((length) => Math.round(length * devicePixelRatio));
  Object.assign(element, {width: x, height: y});
  const pen = element.getContext('2d');
  pen.scale(x / width, y / height);
  pen.lineJoin = 'round';
  return {pen, width, height};
}

// A colour of the style sheet, light or dark as things are.
const colour = (name) => getComputedStyle(document.body).getPropertyValue(`--${name}`);
const STROKES = ['accent', 'second', 'muted'];

// One line. Where messages are missing, and nothing is known, it is dashed.
function trace(pen, series, x, y) {
  pen.beginPath();
  const missing = [];
  series.forEach((bucket, at) => {
    const left = x(bucket.from);
    if (bucket.broken && at) missing.push([series[at - 1], bucket]);
    if (!at || bucket.broken) pen.moveTo(left, y(bucket.low));
    pen.lineTo(left, y(bucket.low));
    pen.lineTo(left, y(bucket.high));
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

const recent = ({series}) => series.filter(({at}) => at >= now() - WINDOW_MS);
const extent = (series) => [Math.min(...series.map(({low}) => low)), Math.max(...series.map(({high}) => high))];
const scale = (from, to, low, high) => (value) => (
  high > low ? from + ((value - low) / (high - low)) * (to - from) : (from + to) / 2
);

view('live', () => {
  const lines = ranked()
    .filter(({instrument}) => instrument === choice.value)
    .map((price) => ({...price, series: recent(price)}))
    .filter(({series}) => series.length)
    .sort((a, b) => b.series.length - a.series.length);
  describeChart(choice.value, lines);
  const sheet = blank(canvas);
  if (!sheet || !lines.length) return;
  const {pen, width, height} = sheet;
  const end = now();
  const start = Math.max(end - WINDOW_MS, Math.min(end - LEAST_MS, ...lines.map(({series}) => series[0].from)));
  let [low, high] = extent(lines.flatMap(({series}) => series));
  const margin = (high - low) * 0.08 || Math.abs(high) * 0.0001 || 1;
  [low, high] = [low - margin, high + margin];
  const [right, bottom] = [width - PAD.right, height - PAD.bottom];
  const x = scale(PAD.left, right, start, end);
  const y = scale(bottom, PAD.top, low, high);

  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  pen.lineWidth = 1;
  pen.strokeStyle = colour('line');
  pen.fillStyle = colour('muted');
  pen.textBaseline = 'middle';
  const newest = lines[0].series.at(-1);
  pen.beginPath();
  const room = PAD.right - 16;
  for (const [price, words] of ticks(low, high, Math.max(3, Math.floor(height / 64)))) {
    pen.moveTo(PAD.left, Math.round(y(price)) + 0.5);
    pen.lineTo(right, Math.round(y(price)) + 0.5);
    if (Math.abs(y(price) - y(newest.last)) > 16) pen.fillText(words, right + 10, y(price), room);
  }
  pen.stroke();
  pen.textAlign = 'center';
  const apart = MINUTES_MS.find((ms) => ((end - start) / ms) * 64 < right) ?? WINDOW_MS;
  for (let at = Math.ceil(start / apart) * apart; at < end; at += apart) {
    const time = new Date(at).toLocaleTimeString('en-GB').slice(0, apart < 60_000 ? 8 : 5);
    if (x(at) > 28 && x(at) < right - 16) pen.fillText(time, x(at), height - 9);
  }
  pen.textAlign = 'left';

  for (const [at, {series}] of [...lines.entries()].reverse()) {
    pen.lineWidth = at ? 1.25 : 1.75;
    pen.strokeStyle = colour(STROKES[Math.min(at, STROKES.length - 1)]);
    trace(pen, series, x, y);
  }
  const {series} = lines[0];
  pen.beginPath();
  pen.moveTo(x(series[0].from), bottom);
  for (const bucket of series) pen.lineTo(x(bucket.at), y(bucket.last));
  pen.lineTo(x(newest.at), bottom);
  const fade = pen.createLinearGradient(0, PAD.top, 0, bottom);
  fade.addColorStop(0, colour('accent-wash'));
  fade.addColorStop(1, 'transparent');
  pen.fillStyle = fade;
  pen.fill();

  pen.fillStyle = colour(STROKES[0]);
  pen.beginPath();
  pen.arc(x(newest.at), y(newest.last), 3, 0, 7);
  pen.roundRect(right + 4, y(newest.last) - 10, PAD.right - 4, 20, 4);
  pen.fill();
  pen.fillStyle = colour('surface');
  pen.fillText(inParts(lines[0].digits)[0], right + 10, y(newest.last) + 0.5, room);
});

// The same in words.
function describeChart(instrument, lines) {
  const [first] = lines;
  const said = lines.map(({exchange, series, digits}) => {
    const low = series.reduce((a, b) => (b.low - a.low < 0 ? b : a)).low;
    const high = series.reduce((a, b) => (b.high - a.high > 0 ? b : a)).high;
    return `${exchange}: low ${grouped(low)}, high ${grouped(high)}, last ${grouped(digits)}`;
  });
  const texts = [said.length ? `${instrument}, last ${WINDOW_MS / 60_000} min.` : 'No prices yet.', ...said];
  showCaption([...texts.keys()], ({element}, at) => put(element, texts[at]));
  const last = byId('chart-last');
  putDigits(last, first?.digits);
  mark(last, 'data-move', first?.move || null);
  const day = days.get(instrument);
  showDay(day ? Object.keys(DAY) : [], ({value}, name) => putDigits(value, day[DAY[name]]));
}

const DAY = {'24 h high': 'highPrice', '24 h low': 'lowPrice', 'Volume': 'volume'};
const showCaption = rows(byId('chart-text'), () => ({element: make('span')}));
const showDay = figures(byId('chart-day'));

view('sparks', () => {
  const [end, stroke] = [now(), colour(STROKES[0])];
  for (const element of document.querySelectorAll('canvas.spark')) {
    const series = recent(prices.get(element.dataset.key) ?? {series: []});
    const sheet = blank(element);
    if (!sheet || !series.length) continue;
    const {pen, width, height} = sheet;
    pen.lineWidth = 1.25;
    pen.strokeStyle = stroke;
    const x = scale(1, width - 1, Math.min(end - LEAST_MS, series[0].from), end);
    trace(pen, series, x, scale(height - 3, 3, ...extent(series)));
  }
});
