/**
 * What is known of the market: messages are folded in as they come, views read it once a frame. It is bounded: the newest
 * of each kind, and per price a series of buckets over the chart's minutes.
 */

export const WINDOW_MS = 5 * 60_000;
const BUCKET_MS = 500;

let skew = Date.now() - performance.now();
let origin = skew; // of this page's clock
let ahead = 0; // how far the daemon's clock is ahead of it
let [epoch, head] = ['', 0];
const seqs = new Map(); // what is shown: the `seq` it is of

/** Milliseconds, by a clock that never goes back, and goes on in a sleep. */
export function now() {
  const before = skew;
  skew = Date.now() - performance.now();
  if (skew > before + 1000) origin += skew - before;
  return origin + performance.now();
}

export const channels = new Map(); // name: {view, state, reason, retryAt, last, at, text, count}
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

/** Be told where the daemon is. A `seq` counts in its epoch only. */
export function meet(welcome) {
  if (!epoch) origin += Date.parse(welcome.timestamp) - now();
  if (welcome.epoch !== epoch || welcome.seq < head) seqs.clear();
  epoch = welcome.epoch;
  hear(welcome);
}

/** Its clock may be set at any time. */
function hear({seq, timestamp}) {
  head = seq;
  ahead = Date.parse(timestamp) - now();
}

const isNewer = (where, seq) => seq >= (seqs.get(where) ?? 0) && seqs.set(where, seq);

export function channel(name) {
  if (!channels.has(name)) {
    channels.set(name, {state: 'connecting', count: 0});
    touched('channels');
  }
  return channels.get(name);
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
  ['channels', 'prices', 'compare', 'book'].forEach(touched);
}

export function fold(message, text) {
  const {connector_id, instrument, seq, received_ms, data} = message;
  const from = channel(connector_id);
  counts.messages += 1;
  from.count += 1;
  if (seq > head) hear(message);
  if (!isNewer(`${connector_id} ${instrument}`, seq)) return;
  const at = Math.min(now(), received_ms - ahead);
  Object.assign(from, {last: message, text, at});
  ['channels', 'raw'].forEach(touched);
  switch (from.view) {
    case 'price':
      price(message, data.price ?? data.last, at);
      break;
    case 'day':
      days.set(instrument, data);
      price(message, data.lastPrice, at);
      break;
    case 'book':
      if (!books.has(instrument)) touched('instruments');
      books.set(instrument, {...data, at, channel: connector_id});
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

function price({instrument, exchange, connector_id, seq, cached, price, data}, said, at) {
  const key = `${instrument} ${exchange}`;
  const digits = said ?? String(price);
  const value = Number(digits);
  if (!isNewer(key, seq)) return; // two channels of one venue
  if (!prices.has(key)) {
    prices.set(key, {key, instrument, exchange, series: [], move: '', flash: '', broken: false});
    touched('instruments');
  }
  const row = prices.get(key);
  if (row.value !== undefined && value !== row.value) row.move = row.flash = value > row.value ? 'up' : 'down';
  Object.assign(row, {digits, value, change: change(data), at, channel: connector_id});
  if (!cached) extend(row, value, digits, at);
  ['prices', 'compare', 'chart'].forEach(touched);
}

/** Add to the series: one bucket per half second, which keeps its lowest, highest and last price. */
function extend(row, value, digits, at) {
  const {series} = row;
  const bucket = series.at(-1);
  at = Math.max(at, bucket?.at ?? 0);
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
