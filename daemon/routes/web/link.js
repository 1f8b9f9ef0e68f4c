// The connection: its state in words, what does not come over it and why, what a loss has cost, how many messages come.

import {byId, mark, put} from './dom.js';
import {channels, counts, now} from './market.js';
import {age} from './numbers.js';
import {touch, view} from './paint.js';

const STAYS_MS = 60_000; // how long the page says how a loss ended
const GRACE_MS = 5000; // beyond the silence after which the daemon itself calls a channel stale
const NAMED = 2; // so many channels are named, with the reason

let current = {state: 'connecting'};
let since = now();
let atOpen = 0; // messages that had come when the connection was opened
let notice = '';
let noticeAt = 0;
let before = {messages: 0, at: performance.now()};

// 'offline' while there is no connection, else ''.
export const offline = () => (current.state === 'open' ? '' : 'offline');

export function state(is) {
  if (is.state === 'open' && current.state !== 'open') atOpen = counts.messages;
  current = is;
  since = now();
  ['link', 'channels', 'prices', 'venues', 'book', 'trades'].forEach(touch);
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

// Of the channels that this page follows, those of which nothing comes, each with the reason.
function missing(followed) {
  return followed.flatMap(([name, {followed, state, reason, retryAt, stale_after_s, heardAt}]) => {
    if (state !== 'live') {
      const again = retryAt > now() ? `; again in ${age(retryAt - now() + 999)}` : '';
      return [`${name} is ${state}${reason && `: ${reason}`}${again}`];
    }
    const silence_ms = now() - Math.max(heardAt ?? since, since);
    const silent = followed === 'whole' && stale_after_s && silence_ms > stale_after_s * 1000 + GRACE_MS;
    return silent ? [`${name} has said nothing for ${age(silence_ms)}`] : [];
  });
}

// What is said while the connection stands: that all is well only while it is.
function open() {
  const followed = [...channels].filter(([, {followed, listed}]) => followed && listed);
  const wrong = missing(followed);
  if (wrong.length) {
    const all = wrong.length === followed.length;
    const some = `${wrong.length} of ${followed.length} channels ${wrong.length === 1 ? 'does' : 'do'} not come`;
    const rest = wrong.length > NAMED ? `; and ${wrong.length - NAMED} more` : '';
    return {well: false, words: `Connected, but ${all ? 'nothing comes' : some}`, more: wrong.slice(0, NAMED).join('; ') + rest};
  }
  if (counts.messages > atOpen) return {well: true, words: 'Connected', more: ''};
  return {well: false, words: 'Connected, nothing has come yet', more: followed.length ? '' : 'no channel is subscribed to'};
}

view('link', () => {
  const {state: name, reason = '', retry_in_s = 0, welcome} = current;
  if (notice && now() - noticeAt > STAYS_MS) notice = '';
  const wait_s = Math.max(0, Math.ceil(retry_in_s - (now() - since) / 1000));
  const offline = navigator.onLine ? '' : 'this device is offline';
  const {well, words, more} = name === 'open' ? open() : {
    well: false,
    words: {connecting: 'Connecting', waiting: 'Connection lost', closed: 'Closed'}[name],
    more: {waiting: `${offline || reason}; again in ${wait_s}\u2009s`, closed: reason}[name] ?? '',
  };
  // Said aloud; what ticks is beside it.
  put(byId('link'), well && notice ? notice : words);
  put(byId('link-more'), [name === 'open' && !well ? notice : '', more || (well ? '' : offline)].filter(Boolean).join(' '));
  mark(byId('link'), 'data-state', name === 'open' && !well ? 'partly' : name);
  mark(document.body, 'data-link', name);
  byId('again').hidden = name !== 'closed';
  if (welcome) put(byId('server'), `${welcome.server.version} at ${location.host}`);
}, {always: true});

view('link', () => {
  const at = performance.now();
  if (at - before.at < 900) return;
  const rate = ((counts.messages - before.messages) * 1000) / (at - before.at);
  before = {messages: counts.messages, at};
  put(byId('rate'), `${rate < 10 ? rate.toFixed(1).replace('.0', '') : Math.round(rate)} messages/s`);
}, {always: true});
