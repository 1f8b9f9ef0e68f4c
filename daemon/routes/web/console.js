// What the venue said last, and a console to talk to the daemon by hand.

import {byId, make, options, put, rows} from './dom.js';
import {channels} from './market.js';
import {touch, touchNow, view} from './paint.js';

const RAW_EVERY_MS = 300; // faster, nobody can read it
const RAW_CHARS = 6000;
const MOST_LINES = 200;

const rawChoice = byId('raw-channel');
const lines = [];
const sent = new Map(); // id: when
let rawAt = 0;

view('raw', () => {
  if (rawChoice.length !== channels.size) {
    const names = [...channels.keys()];
    options(rawChoice, names, channels.has(rawChoice.value) ? rawChoice.value : names[0]);
    byId('names').replaceChildren(...['*', ...names].map((name) => new Option(name)));
  }
  const at = performance.now();
  if (byId('raw-hold').checked || at - rawAt < RAW_EVERY_MS) return;
  rawAt = at;
  const {text = '', count = 0} = channels.get(rawChoice.value) ?? {};
  const cut = text.length > RAW_CHARS;
  put(byId('raw-text'), cut ? `${text.slice(0, RAW_CHARS)}…` : text || 'Nothing yet.');
  const more = cut ? `, the first ${RAW_CHARS} shown` : '';
  put(byId('raw-note'), `${text.length} characters${more}; message ${count} of this page`);
});

const showLog = rows(byId('log'), (line) => ({
  element: make('li', line.kind, make('span', 'muted', line.time), ' ', make('span', 'what', line.head), ' ', line.text),
}));

view('log', () => {
  const list = byId('log');
  const atEnd = list.scrollTop + list.clientHeight > list.scrollHeight - 30;
  showLog(lines, () => {});
  if (atEnd) list.scrollTop = list.scrollHeight;
}, {always: true});

function add(kind, head, text) {
  lines.push({kind, head, text, time: new Date().toLocaleTimeString('en-GB')});
  lines.splice(0, lines.length - MOST_LINES);
  touch('log');
}

export function log(event) {
  const took = sent.has(event.id) ? ` ${(performance.now() - sent.get(event.id)).toFixed(1)}\u2009ms` : '';
  const {timestamp, ...rest} = event;
  add(event.type, `←${took}`, JSON.stringify(rest));
}

export function setUpConsole(client) {
  rawChoice.onchange = () => {
    rawAt = 0;
    touchNow('raw');
  };
  byId('command').onsubmit = (submitted) => {
    submitted.preventDefault();
    const what = submitted.submitter?.value ?? 'subscribe';
    const names = byId('command-channels').value.split(/[\s,]+/).filter(Boolean);
    const interval = byId('command-interval').value.trim();
    const how = what === 'subscribe' && interval ? {interval_ms: Number(interval)} : {};
    const at = performance.now();
    const id = client[what](names, how);
    sent.set(id, at);
    if (sent.size > MOST_LINES) sent.delete(sent.keys().next().value);
    add('out', '→', JSON.stringify({type: what, channels: what === 'ping' ? undefined : names, ...how, id}));
  };
}
