// The connection: its state in words, what a loss has cost, how many messages come.

import {byId, mark, put, touch, view} from './dom.js';
import {counts, now} from './market.js';
import {age} from './numbers.js';

const STAYS_MS = 60_000; // how long the page says how a loss ended

let current = {state: 'connecting'};
let since = now();
let notice = '';
let noticeAt = 0;
let before = {messages: 0, at: performance.now()};

export function state(is) {
  current = is;
  since = now();
  touch('link');
  touch('live');
}

// The client's `onEvent`: what may be missing.
export function event(what) {
  const {type, away_ms, recovered, restarted, lost, missed, channel} = what;
  if (type === 'resumed') {
    notice = `Connected again after ${age(away_ms)}`;
    if (recovered) notice += ', resumed: nothing was missed.';
    else if (restarted) notice += '. The daemon was restarted; live from its newest messages.';
    else notice += `. Some messages are missing in: ${lost.join(', ')}.`;
  } else if (type === 'lagged') notice = `This page could not keep up: ${missed} messages were left out.`;
  else if (type === 'gap') notice = `A message of ${channel} is missing.`;
  else return;
  noticeAt = now();
  touch('link');
}

byId('again').onclick = () => location.reload();

view('link', () => {
  const {state: name, reason = '', retry_in_s = 0, welcome} = current;
  const words = {connecting: 'Connecting', open: 'Connected', waiting: 'Connection lost', closed: 'Closed'};
  if (notice && now() - noticeAt > STAYS_MS) notice = '';
  // Said aloud; what ticks is beside it.
  put(byId('link'), name === 'open' && notice ? notice : words[name]);
  mark(byId('link'), 'data-state', name);
  mark(document.body, 'data-link', name);
  const wait_s = Math.max(0, Math.ceil(retry_in_s - (now() - since) / 1000));
  const offline = navigator.onLine ? '' : 'this device is offline';
  const more = {open: offline, waiting: `${offline || reason}; again in ${wait_s}\u2009s`, closed: reason};
  put(byId('link-more'), more[name] ?? '');
  byId('again').hidden = name !== 'closed';
  if (!welcome) return;
  put(byId('server'), `${welcome.server.version} at ${location.host}`);
  const {replay} = welcome;
  byId('replay').hidden = !replay;
  if (!replay) return;
  const speed = replay.speed === 'max' ? 'as fast as can be' : `at ${replay.speed} times the speed`;
  put(byId('replay'), `This is a recording, from ${replay.from} to ${replay.to}, played ${speed}. Nothing here is of now.`);
});

view('link', () => {
  const at = performance.now();
  if (at - before.at < 900) return;
  const rate = ((counts.messages - before.messages) * 1000) / (at - before.at);
  before = {messages: counts.messages, at};
  put(byId('rate'), `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} messages/s`);
});
