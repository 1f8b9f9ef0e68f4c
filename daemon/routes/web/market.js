// What is known of the market: messages are folded in, views read it once a frame. It is bounded: the newest of each
// kind, and per price a series of buckets over the chart's minutes.

import {touch} from './dom.js';
import {isNumber, value, word} from './numbers.js';

export const WINDOW_MS = 5 * 60_000;
const BUCKET_MS = 500;

let skew = Date.now() - performance.now();
let origin = skew; // of this page's clock
let ahead = 0; // how far the daemon's clock is ahead of it
let [epoch, head, replayed] = ['', 0, false];
const seqs = new Map(); // what is shown: the `seq` it is of

// Milliseconds, by a clock that never goes back, and goes on in a sleep.
export function now() {
  const before = skew;
  skew = Date.now() - performance.now();
  if (skew > before + 1000) origin += skew - before;
  return origin + performance.now();
}

export const channels = new Map(); // name: {type, view, state, reason, retryAt, last, at, text, count}
export const prices = new Map(); // key: {key, instrument, exchange, digits, value, change, at, series, ...}
export const books = new Map(); // instrument: {bids, asks, at, channel}
export const best = new Map(); // instrument: {text, at, channel}, over all venues
export const days = new Map(); // instrument: the 24 h ticker's object, and its channel
export const lists = new Map(); // view: {text}, parsed when it is shown
export const counts = {messages: 0};
const order = new Map(); // instrument: its place in the catalogue

// Be told where the daemon is. A `seq` counts in its epoch only.
export function meet(welcome) {
  if (!epoch) origin += Date.parse(welcome.timestamp) - now();
  if (welcome.epoch !== epoch || welcome.seq < head) seqs.clear();
  epoch = welcome.epoch;
  replayed = Boolean(welcome.replay);
  hear(welcome);
}

// Its clock may be set at any time. A recording's data is as old as it was when it was recorded.
function hear({seq, timestamp, received_ms}) {
  head = seq;
  ahead = ((replayed && received_ms) || Date.parse(timestamp)) - now();
}

const isNewer = (where, seq) => seq >= (seqs.get(where) ?? 0) && seqs.set(where, seq);

export function channel(name) {
  if (!channels.has(name)) channels.set(name, {state: 'connecting', count: 0});
  return channels.get(name);
}

// Take the catalogue. What a channel has shown and no longer has is forgotten; what waited is shown.
export function describe(reports) {
  for (const {name, type, view, instruments, cadence_s, state, reason, age_s} of reports) {
    for (const shown of [prices, books, best, days, lists]) {
      for (const [key, {channel, view: before, instrument}] of shown) {
        const has = before === view && (!instrument || instruments.includes(instrument));
        if (channel === name && !has) shown.delete(key);
      }
    }
    for (const each of instruments) order.set(each, order.get(each) ?? order.size);
    const known = channel(name);
    const waited = known.last && known.type !== type;
    Object.assign(known, {type, view, cadence_s});
    if (!known.told) Object.assign(known, {state, reason, at: now() - (age_s ?? NaN) * 1000});
    if (waited) show(known);
  }
  ['instruments', 'live', 'market', 'top', 'trending'].forEach(touch);
}

// The prices in the catalogue's order of instruments, the venues of one together.
export function ranked() {
  const rank = ({instrument}) => order.get(instrument) ?? order.size;
  return [...prices.values()].sort((a, b) => rank(a) - rank(b) || a.key.localeCompare(b.key));
}

export function status({channel: name, state, reason = '', retry_in_s}) {
  Object.assign(channel(name), {told: true, state, reason, retryAt: retry_in_s ? now() + retry_in_s * 1000 : 0});
  touch('live');
  if (state === 'connecting' && reason) touch('catalogue'); // begun anew, it may be about something else
}

export function fold(message, text) {
  const {connector_id, instrument, seq, received_ms, type} = message;
  const from = channel(connector_id);
  counts.messages += 1;
  from.count += 1;
  if (seq > head) hear(message);
  if (!isNewer(`${connector_id} ${instrument}`, seq)) return;
  Object.assign(from, {last: message, text, at: Math.min(now(), received_ms - ahead)});
  touch('live');
  if (type === from.type) show(from);
  else touch('catalogue');
}

// What a channel said last, where its view wants it.
function show({view, text, at, last: message}) {
  const {connector_id, instrument} = message;
  const data = message.data ?? {};
  const told = {channel: connector_id, view, instrument, at};
  switch (view) {
    case 'price':
      return price(message, data, told);
    case 'day':
      days.set(instrument, {...data, ...told});
      return price(message, data, told);
    case 'book':
      const one = books.get(instrument)?.channel;
      if (one && one !== connector_id && channel(one).state === 'live') return;
      if (!one) touch('instruments');
      return books.set(instrument, {...data, ...told});
    case 'best':
      return best.set(instrument, {text, ...told});
    default:
      lists.set(view, {text, ...told});
      touch(view);
  }
}

// The day's change in per cent.
function change(all) {
  const said = all.priceChangePercent ?? all.P ?? all.change_pct ?? all.price_percent_chg_24_h;
  if (said !== undefined) return said;
  const part = all.price24hPcnt ?? value(all.last) / value(all.open24h) - 1;
  return isNumber(part) ? (part * 100).toFixed(2) : '';
}

function price({exchange, seq, cached, price}, data, told) {
  const digits = word([data.price, data.last, data.lastPrice, data.c, price].find(isNumber));
  if (!digits) return;
  const key = `${told.instrument} ${exchange}`;
  const amount = value(digits);
  if (!isNewer(key, seq)) return; // two channels of one venue
  if (!prices.has(key)) {
    prices.set(key, {key, exchange, series: [], move: '', flash: false, broken: false});
    touch('instruments');
  }
  const row = prices.get(key);
  if (row.value !== undefined && amount !== row.value) {
    row.move = amount > row.value ? 'up' : 'down';
    row.flash = true;
  }
  Object.assign(row, told, {digits, value: amount, change: change(data)});
  if (!cached) extend(row, digits, told.at);
}

// Add to the series: one bucket per half second, with the digits of its lowest, highest and last price.
function extend(row, digits, at) {
  const {series} = row;
  const bucket = series.at(-1);
  at = Math.max(at, bucket?.at ?? 0);
  if (bucket && at - bucket.from < BUCKET_MS && !row.broken) {
    if (digits - bucket.low < 0) bucket.low = digits;
    if (digits - bucket.high > 0) bucket.high = digits;
    Object.assign(bucket, {last: digits, at});
    return;
  }
  series.push({from: at, at, low: digits, high: digits, last: digits, broken: row.broken});
  row.broken = false;
  if (series.length > 64 && series[32].at < at - WINDOW_MS) series.splice(0, 32);
}

// Messages of this channel (of all, without a name) are missing: the charts show where.
export function broken(name) {
  for (const row of prices.values()) if (!name || row.channel === name) row.broken = row.series.length > 0;
}

// Parse, with each number as the venue's digits; in old browsers as those of the nearest number.
export function exactly(text) {
  return JSON.parse(text, (key, value, context) => (typeof value === 'number' ? context?.source ?? String(value) : value));
}
