// The live page: one connection, one state, and views of it.

import './book.js';
import './channels.js';
import './chart.js';
import './lists.js';
import './prices.js';
import './sparks.js';
import './trades.js';
import './venues.js';
import * as candles from './candles.js';
import {chosen, instrument, range, RANGES_MS, title} from './choice.js';
import {connect} from './client.js';
import {log, setUpConsole} from './console.js';
import {event, offline, state} from './link.js';
import * as market from './market.js';
import {greet} from './notices.js';
import {touch, view} from './paint.js';
import * as tape from './tape.js';
import {whenWoken} from './wake.js';

const REPLAY = 2000; // so many messages before the newest the small charts begin
const POINTS = 2000; // so many prices of each venue fill the chart
const PAGES = 4; // of candles that are asked for in a row, at most
const ANSWER_MS = 10_000;
const SPREAD_MS = 5000;
const BOOK_MS = 100; // the page draws no more often
const BEST_MS = 250;

const [, token] = /token=([^&]+)/.exec(location.hash) ?? [];
const headers = token ? {Authorization: `Bearer ${token}`} : {};

// Take what the daemon answers; until it does it is asked again, and that is told. `still` ends it: nobody waits any more.
async function get(path, take, tell, still = () => true) {
  for (let limit_s = 1; still(); limit_s = Math.min(2 * limit_s, 30)) {
    let reason;
    let retry_in_s = (limit_s * (1 + Math.random())) / 2;
    try {
      const answer = await fetch(path, {headers, signal: AbortSignal.timeout(ANSWER_MS)});
      reason = answer.ok ? 'not the answer of a tickerd' : `HTTP ${answer.status}`;
      retry_in_s = Math.min(Number(answer.headers.get('Retry-After')) || retry_in_s, 600);
      if (answer.status < 500 && answer.status !== 429) return still() ? take(await answer.json()) : undefined;
    } catch (error) {
      reason ??= error.message;
    }
    tell({state: 'waiting', reason: `${path}: ${reason}`, retry_in_s});
    await new Promise((done) => {
      setTimeout(done, retry_in_s * 1000);
      addEventListener('online', done, {once: true});
    });
  }
}

const complain = (why) => log({type: 'error', ...why});

const describe = (tell = complain) => get('channels', ({channels}) => market.describe(channels), tell);
let again;
view('catalogue', () => {
  again ??= setTimeout(() => describe().then(() => (again = undefined)), Math.random() * SPREAD_MS); // not all pages at once
}, {always: true});
setInterval(() => ['link', 'channels', 'prices', 'venues', 'book', 'trades', 'chart', 'sparks', 'raw'].forEach(touch), 1000);
setInterval(touch, 15_000, 'catalogue');
for (const head of document.querySelectorAll('th')) head.scope = 'col';
await describe(state);
const priced = [...market.channels.keys()].filter((name) => ['price', 'day'].includes(market.channel(name).view));
const known = new Set(priced); // one that was left by hand is not brought back
let began = false;

// A replay brings what is new enough; older ones are in the snapshots.
function fillUp(seq) {
  for (const name of priced) {
    get(`snapshot/${encodeURIComponent(name)}`, ({messages = []}) => {
      for (const message of messages) if (message.seq <= seq) market.fold(message, JSON.stringify(message));
    }, complain);
  }
}

const ALWAYS = ['price', 'day', 'best', 'market', 'top', 'trending'];
async function follow(names) {
  if (began || names.some((name) => !market.channel(name).view)) await describe();
  for (const best of [false, true]) {
    const some = names.filter((name) => {
      const {view} = market.channel(name);
      return ALWAYS.includes(view) && best === (view === 'best');
    });
    if (some.length) client.subscribe(some, best ? {interval_ms: BEST_MS} : {});
  }
}

let allowed = []; // the channels that this page may have
const looked = new Map(); // a channel that only has what is looked at: which instrument

// Have the book, the trades and the candles of what is looked at, and of nothing else.
function look() {
  const wanted = new Map();
  for (const view of ['book', 'trade', 'candle']) {
    const name = chosen(view);
    if (name && allowed.includes(name)) wanted.set(name, view);
  }
  tape.look(chosen('trade'), instrument());
  candles.look(chosen('candle'), instrument());
  const left = [...looked.keys()].filter((name) => !wanted.has(name));
  if (left.length) client.unsubscribe(left);
  left.forEach((name) => looked.delete(name));
  for (const [name, view] of wanted) {
    if (looked.get(name) === instrument()) continue;
    looked.set(name, instrument());
    client.subscribe([name], {instruments: [instrument()], ...(view === 'book' ? {interval_ms: BOOK_MS} : {})});
  }
}

// Ask for what was before: one answer after the other, each with what the next one is to be asked for.
async function past(channel, query, take, goOn = () => false) {
  const [name, lookedAt] = [instrument(), chosen('candle')];
  const still = () => name === instrument() && lookedAt === chosen('candle');
  let before = {};
  for (let page = 0; page < PAGES && before; page += 1) {
    const asked = new URLSearchParams({instrument: name, ...query, ...before});
    before = undefined;
    await get(`history/${encodeURIComponent(channel)}?${asked}`, ({messages = [], more, before_ms, reason}) => {
      take(messages);
      if (reason) log({type: 'history', channel, reason});
      if (more && before_ms && goOn()) before = {before_ms};
    }, complain, still);
  }
}

// How far back the chart of candles goes, and how many candles that takes: one a minute, and some to spare.
const reachesBack = () => market.local(candles.oldest()) <= market.now() - RANGES_MS[range()];
const candleCount = () => RANGES_MS[range()] / 60_000 + 30;

// Fill the chart and the tape of trades, each once for what is looked at. A daemon that has no history leaves them to what
// comes.
const filled = new Map(); // what: for which channel and instrument
function fillPast() {
  const isNew = (what, key) => filled.get(what) !== key && filled.set(what, key);
  for (const [name, {view, instruments}] of market.channels) {
    if (view !== 'price' || !instruments.includes(instrument()) || !allowed.includes(name)) continue;
    const key = `${name} ${instrument()}`;
    if (isNew(key, key)) past(name, {limit: POINTS}, market.fill);
  }
  const [trades, candle] = ['trade', 'candle'].map(chosen).map((name) => allowed.includes(name) && name);
  if (trades && isNew('trades', `${trades} ${instrument()}`)) {
    past(trades, {limit: tape.MOST}, (messages) => tape.fill(messages, market.local));
  }
  if (candle && isNew('candles', `${candle} ${instrument()} ${range()}`) && !reachesBack()) {
    past(candle, {limit: candleCount()}, (messages) => messages.forEach(candles.take), () => !reachesBack());
  }
}

// Drawn whenever something else is looked at, or there is something else to look at.
view('instruments', () => {
  if (offline()) return; // it is asked for when there is a connection
  look();
  fillPast();
}, {always: true});

// Messages of this channel (of all, without a name) are missing.
function broken(name) {
  market.broken(name);
  if (tape.forget(name)) filled.delete('trades');
  filled.delete('candles');
  touch('instruments');
}

const client = connect('ws', {
  token,
  channels: priced,
  replay: REPLAY,
  onMessage: (message, text) => {
    market.fold(message, text);
    title();
  },
  onStatus: market.status,
  onEvent: (what) => {
    const {type, lost, channel, channels = []} = what;
    ({resumed: lost, lagged: [undefined], gap: [channel]})[type]?.forEach(broken);
    if (type === 'subscribed') for (const name of channels) market.channel(name).followed = looked.has(name) ? 'part' : 'whole';
    if (type === 'unsubscribed') for (const name of channels) market.channel(name).followed = '';
    event(what);
    log(what);
  },
  onState: (now) => {
    if (now.state === 'open') {
      const {welcome} = now;
      market.meet(welcome);
      greet(welcome);
      allowed = welcome.channels;
      follow(welcome.channels.filter((name) => !known.has(name) && known.add(name)));
      if (!began) fillUp(welcome.seq - REPLAY);
      began = true;
      touch('instruments');
    }
    if (now.state === 'waiting' && !began) { // only what it fetches is told why
      fetch(`snapshot/${priced[0]}`, {headers}).then(({status}) => {
        if (status === 401) now.reason = 'no valid token: open this page as /#token=TOKEN';
      }, () => {});
    }
    state(now);
  },
});

setUpConsole(client);
whenWoken(() => dispatchEvent(new Event('online'))); // whoever waits for the network looks at once whether it is there
addEventListener('hashchange', () => location.hash.includes('token=') && location.reload());
