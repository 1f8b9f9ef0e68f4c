// The last trades of what is looked at, newest first.

import {touch} from './paint.js';

export const MOST = 60;

let topic = '';
let newest = []; // {seq, at, text, message}

// Look at this topic from now on.
export function look(channel, instrument) {
  if (topic === `${channel} ${instrument}`) return;
  topic = `${channel} ${instrument}`;
  newest = [];
  touch('trades');
}

export function take(message, text, at) {
  if (topic !== `${message.connector_id} ${message.instrument}`) return;
  newest.unshift({seq: message.seq, at, text, message});
  if (newest.length > MOST) newest.length = MOST;
  touch('trades');
}

// Take what was before, from the daemon's history.
export function fill(messages, local) {
  const before = newest.at(-1)?.seq ?? Infinity;
  const older = messages.filter(({seq, connector_id, instrument}) => seq < before && topic === `${connector_id} ${instrument}`);
  const rows = older.reverse().map((message) => ({
    seq: message.seq, at: local(message.received_ms), text: JSON.stringify(message), message,
  }));
  newest = [...newest, ...rows].slice(0, MOST);
  touch('trades');
}

// Trades of this channel (of any, without a name) are missing: what is known does not go on. Whether it concerns this tape.
export function forget(channel) {
  if (channel && !topic.startsWith(`${channel} `)) return false;
  newest = [];
  return true;
}

export const trades = () => newest;
