// What is known of the market: messages are folded in, views read it when they are drawn. It is bounded: the newest of each
// kind, and per price a series of buckets over the chart's minutes.

import * as candles from './candles.js';
import {decimals, isNumber, value, word} from './numbers.js';
import {touch} from './paint.js';
import * as tape from './tape.js';

export const WINDOW_MS = 5 * 60_000;
const BUCKET_MS = 500;
const LATELY = 200; // so many prices say how many decimals an instrument has

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

// What the venue's or the daemon's clock says, by the page's.
export const local = (ms) => ms - ahead;

export const channels = new Map(); // name: {type, view, source, instruments, state, reason, topics, last, at, text, count, ...}
export const prices = new Map(); // key: {key, instrument, exchange, digits, decimals, value, change, at, series, ...}
export const books = new Map(); // channel and instrument: {bids, asks, at, channel}
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
  const told = new Set();
  for (const {name, type, view, kind, source, instruments, cadence_s, stale_after_s, state, reason, topics, age_s} of reports) {
    told.add(name);
    for (const shown of [prices, books, best, days, lists]) {
      for (const [key, {channel, view: before, instrument}] of shown) {
        const has = before === view && (!instrument || instruments.includes(instrument));
        if (channel === name && !has) shown.delete(key);
      }
    }
    for (const each of instruments) order.set(each, order.get(each) ?? order.size);
    const known = channel(name);
    const waited = known.last && known.type !== type;
    Object.assign(known, {type, view, kind, source, instruments, cadence_s, stale_after_s});
    if (!known.told) Object.assign(known, {state, reason, topics, at: now() - (age_s ?? NaN) * 1000});
    if (waited) show(known);
  }
  for (const [name, known] of channels) known.listed = told.has(name);
  ['instruments', 'channels', 'prices', 'link', 'market', 'top', 'trending'].forEach(touch);
}

// All instruments that a channel has, in the catalogue's order.
export const instruments = () => [...order.keys()].filter((name) => (
  [...channels.values()].some(({listed, instruments}) => listed && instruments?.includes(name))
));

// The prices in the catalogue's order of instruments, the venues of one together.
export function ranked() {
  const rank = ({instrument}) => order.get(instrument) ?? order.size;
  return [...prices.values()].sort((a, b) => rank(a) - rank(b) || a.key.localeCompare(b.key));
}

export function status({channel: name, state, reason = '', retry_in_s, topics = {}}) {
  const retryAt = retry_in_s ? now() + retry_in_s * 1000 : 0;
  Object.assign(channel(name), {told: true, state, reason, topics, retryAt});
  ['channels', 'prices', 'book', 'venues', 'link'].forEach(touch);
  if (state === 'connecting' && reason) touch('catalogue'); // begun anew, it may be about something else
}

export function fold(message, text) {
  const {connector_id, instrument, seq, received_ms, type} = message;
  const from = channel(connector_id);
  counts.messages += 1;
  from.count += 1;
  if (seq > head) hear(message);
  if (!isNewer(`${connector_id} ${instrument}`, seq)) return;
  Object.assign(from, {last: message, text, at: Math.min(now(), local(received_ms)), heardAt: now()});
  touch('raw');
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
      touch('book');
      return books.set(`${connector_id} ${instrument}`, {...data, ...told});
    case 'best':
      touch('venues');
      return best.set(instrument, {text, ...told});
    case 'trade':
      return tape.take(message, text, at);
    case 'candle':
      return candles.take(message);
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

// The last price that a message says, with the venue's digits.
function digitsOf({price, data}) {
  return word([data?.price, data?.last, data?.lastPrice, data?.c, price].find(isNumber));
}

function price(message, data, told) {
  const {exchange, seq, cached} = message;
  const digits = digitsOf(message);
  if (!digits) return;
  const key = `${told.instrument} ${exchange}`;
  const amount = value(digits);
  if (!isNewer(key, seq)) return; // two channels of one venue
  if (!prices.has(key)) {
    prices.set(key, {key, exchange, series: [], move: '', flash: false, broken: false, decimals: 0, seen: 0, lately: 0});
    touch('instruments');
  }
  const row = prices.get(key);
  if (row.value !== undefined && amount !== row.value) {
    row.move = amount > row.value ? 'up' : 'down';
    row.flash = true;
  }
  Object.assign(row, told, {digits, value: amount, change: change(data)});
  measure(row, digits);
  if (!cached) extend(row, digits, told.at);
  ['prices', 'venues', 'chart'].forEach(touch);
}

// The decimals of an instrument are the most that its prices had lately.
function measure(row, digits) {
  row.lately = Math.max(row.lately, decimals(digits));
  row.decimals = Math.max(row.decimals, row.lately);
  row.seen += 1;
  if (row.seen % LATELY === 0) Object.assign(row, {decimals: row.lately, lately: 0});
}

// Take what was before, from the daemon's history: what is newer than what is shown goes on from there, what is older comes
// before it.
export function fill(messages) {
  const older = new Map(); // key: a series
  for (const message of messages) {
    const {connector_id, instrument, exchange, seq, received_ms, cached} = message;
    const row = prices.get(`${instrument} ${exchange}`);
    if (!row || seq > (seqs.get(`${connector_id} ${instrument}`) ?? 0)) fold(message, JSON.stringify(message));
    else if (!cached && digitsOf(message)) {
      if (!older.has(row)) older.set(row, {series: [], broken: false});
      const at = local(received_ms);
      if (at >= now() - WINDOW_MS && at < row.series[0]?.from) extend(older.get(row), digitsOf(message), at);
    }
  }
  for (const [row, {series}] of older) row.series = [...series, ...row.series];
  touch('chart');
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

// What is wrong with a channel, or with one instrument there, in a word; '' while its data is fresh.
export function trouble(name, instrument) {
  const {state, topics} = channel(name);
  const own = topics?.[instrument]?.state;
  return state === 'live' ? (own ?? '').replace('live', '') : state;
}

// Parse, with each number as the venue's digits; in old browsers as those of the nearest number.
export function exactly(text) {
  return JSON.parse(text, (key, value, context) => (typeof value === 'number' ? context?.source ?? String(value) : value));
}
