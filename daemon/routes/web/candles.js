// The candles of what is looked at: what was, from the daemon's history, and what comes. Bounded by the longest range.

import {isNumber, value} from './numbers.js';
import {touch} from './paint.js';

const MOST = 3000;

let topic = '';
const known = new Map(); // start_ms: a candle
let step = 60_000;

const nameOf = (channel, instrument) => `${channel} ${instrument}`;

// Look at this topic from now on; '' and '' for none.
export function look(channel, instrument) {
  if (topic === nameOf(channel, instrument)) return;
  topic = nameOf(channel, instrument);
  known.clear();
  touch('chart');
}

export function take({connector_id, instrument, interval, start_ms, open, high, low, close, volume, closed, seq}) {
  if (topic !== nameOf(connector_id, instrument)) return;
  if (![start_ms, open, high, low, close].every(isNumber)) return;
  const before = known.get(start_ms);
  if (before && (before.closed === closed ? before.seq > seq : before.closed)) return; // a closed one stays
  step = length_ms(interval);
  [open, high, low, close, volume] = [open, high, low, close, volume].map(value);
  known.set(start_ms, {start: start_ms, open, high, low, close, volume: volume || 0, closed, seq});
  if (known.size > MOST) for (const start of [...known.keys()].sort((a, b) => a - b).slice(0, MOST / 2)) known.delete(start);
  touch('chart');
}

const UNITS_MS = {s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000};

function length_ms(interval) {
  const [, count, unit] = /^(\d+)([smhdw])$/i.exec(interval) ?? [];
  return count * UNITS_MS[unit?.toLowerCase()] || 60_000;
}

// Those from a moment on, oldest first, several made one where `least_ms` is longer than they are.
export function since(from_ms, least_ms) {
  const length = Math.max(step, least_ms);
  const made = [];
  for (const {start, ...one} of [...known.values()].sort((a, b) => a.start - b.start)) {
    const begin = Math.floor(start / length) * length;
    if (begin + length <= from_ms) continue;
    const last = made.at(-1);
    if (last?.start !== begin) made.push({start: begin, end: begin + length, ...one});
    else {
      Object.assign(last, {
        high: Math.max(last.high, one.high),
        low: Math.min(last.low, one.low),
        close: one.close,
        volume: last.volume + one.volume,
        closed: one.closed,
      });
    }
  }
  return made;
}

// When the oldest one begins; Infinity while there is none.
export const oldest = () => Math.min(...known.keys());
