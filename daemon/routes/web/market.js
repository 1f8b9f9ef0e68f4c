/**
 * What is known of the market: messages are folded in as they come, views read it once a frame. It is bounded: the newest
 * of each kind, and per price a series of buckets over the chart's minutes.
 */

export const WINDOW_MS = 5 * 60_000;
const BUCKET_MS = 500;

/** How far the daemon's clock is ahead of this one. */
let offset_ms = 0;

export const now = () => Date.now() + offset_ms;

export const channels = new Map(); // name: {view, state, reason, retryAt, last, text, count}
export const prices = new Map(); // key: {key, instrument, exchange, digits, value, change, at, series, ...}
export const books = new Map(); // instrument: {bids, asks, at, channel}
export const days = new Map(); // instrument: the 24 h ticker's object
export const lists = {}; // view: {text}, parsed when it is shown
export const counts = {messages: 0};
const order = new Map(); // instrument: its place in the catalogue

let touched = () => {};

/** Be told what has changed: `touch(name of the view)`. */
export function watch(touch) {
  touched = touch;
}

export function setClock(timestamp) {
  offset_ms = Date.parse(timestamp) - Date.now();
}

export function channel(name) {
  let known = channels.get(name);
  if (!known) {
    known = {state: 'connecting', reason: '', retryAt: 0, last: null, text: '', count: 0};
    channels.set(name, known);
    touched('channels');
  }
  return known;
}

export function describe(reports) {
  for (const {name, view, instruments} of reports) {
    channel(name).view = view;
    for (const each of instruments) order.set(each, order.get(each) ?? order.size);
  }
}

/** The prices in the catalogue's order of instruments, the venues of one together. */
export function ranked() {
  const rank = ({instrument}) => order.get(instrument) ?? order.size;
  return [...prices.values()].sort((a, b) => rank(a) - rank(b) || a.exchange.localeCompare(b.exchange));
}

export function status({channel: name, state, reason = '', retry_in_s}) {
  Object.assign(channel(name), {state, reason, retryAt: retry_in_s ? now() + retry_in_s * 1000 : 0});
  for (const each of ['channels', 'prices', 'compare', 'book']) touched(each);
}

export function fold(message, text) {
  const from = channel(message.connector_id);
  counts.messages += 1;
  from.count += 1;
  from.last = message;
  from.text = text;
  touched('channels');
  touched('raw');
  switch (from.view) {
    case 'price':
      price(message, message.data.price ?? message.data.last, change(message.data));
      break;
    case 'day':
      days.set(message.instrument, message.data);
      price(message, message.data.lastPrice, change(message.data));
      break;
    case 'book':
      if (!books.has(message.instrument)) touched('instruments');
      books.set(message.instrument, {...message.data, at: message.received_ms, channel: message.connector_id});
      touched('book');
      break;
    case 'market':
    case 'top':
    case 'trending':
      lists[from.view] = {text};
      touched(from.view);
  }
}

/** The day's change in per cent: as the venue says it, or from what it says. */
function change({priceChangePercent, last, open24h}) {
  if (priceChangePercent !== undefined) return priceChangePercent;
  return Number(open24h) ? ((last / open24h - 1) * 100).toFixed(2) : '';
}

function price({instrument, exchange, connector_id, received_ms, cached, price}, said, change) {
  const key = `${instrument} ${exchange}`;
  const digits = said ?? String(price);
  const value = Number(digits);
  let row = prices.get(key);
  if (!row) {
    row = {key, instrument, exchange, series: [], move: '', at: 0, flash: '', broken: false};
    prices.set(key, row);
    touched('instruments');
  }
  if (received_ms < row.at) return; // two channels of one venue: the newer one counts
  if (row.value !== undefined && value !== row.value) row.move = row.flash = value > row.value ? 'up' : 'down';
  Object.assign(row, {digits, value, change, at: received_ms, channel: connector_id});
  if (!cached) extend(row, value, digits, received_ms);
  touched('prices');
  touched('compare');
  touched('chart');
}

/** Add to the series: one bucket per half second, which keeps its lowest, highest and last price. */
function extend(row, value, digits, at) {
  const {series} = row;
  const bucket = series.at(-1);
  if (bucket && at - bucket.from < BUCKET_MS && !row.broken) {
    if (value < bucket.low) [bucket.low, bucket.lowDigits] = [value, digits];
    if (value > bucket.high) [bucket.high, bucket.highDigits] = [value, digits];
    Object.assign(bucket, {last: value, at});
    return;
  }
  series.push({
    from: at, at, low: value, high: value, last: value, lowDigits: digits, highDigits: digits, broken: row.broken,
  });
  row.broken = false;
  if (series.length > 64 && series[32].at < at - WINDOW_MS) series.splice(0, 32);
}

/** Messages of this channel (of all, without a name) are missing: the charts show where. */
export function broken(name) {
  for (const row of prices.values()) if (!name || row.channel === name) row.broken = row.series.length > 0;
}

/** Parse, with each number as the venue's digits. Old browsers do not tell them: there it is the nearest number's. */
export function exactly(text) {
  return JSON.parse(text, (key, value, context) => (typeof value === 'number' ? context?.source ?? String(value) : value));
}
