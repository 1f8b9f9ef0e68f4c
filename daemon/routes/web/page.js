// The live page: one connection, one state, and once a frame whatever has changed is shown.

import './chart.js';
import './lists.js';
import './live.js';
import {connect} from './client.js';
import {log, setUpConsole} from './console.js';
import {touch, view} from './dom.js';
import {event, state} from './link.js';
import * as market from './market.js';

const REPLAY = 2000; // so many messages before the newest the charts begin
const ANSWER_MS = 10_000;
const SPREAD_MS = 5000;

const [, token] = /token=([^&]+)/.exec(location.hash) ?? [];
const headers = token ? {Authorization: `Bearer ${token}`} : {};

// Take what the daemon answers; until it does it is asked again, and that is told.
async function get(path, take, tell) {
  for (let limit_s = 1; ; limit_s = Math.min(2 * limit_s, 30)) {
    let reason;
    let retry_in_s = (limit_s * (1 + Math.random())) / 2;
    try {
      const answer = await fetch(path, {headers, signal: AbortSignal.timeout(ANSWER_MS)});
      reason = answer.ok ? 'not the answer of a tickerd' : `HTTP ${answer.status}`;
      retry_in_s = Math.min(Number(answer.headers.get('Retry-After')) || retry_in_s, 600);
      if (answer.status < 500 && answer.status !== 429) return take(await answer.json());
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
});
setInterval(() => ['link', 'live', 'sparks'].forEach(touch), 1000);
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

const SEEN = ['price', 'day', 'book', 'best', 'market', 'top', 'trending'];
async function follow(names) {
  if (began || names.some((name) => !market.channel(name).view)) await describe();
  for (const often of [true, false]) {
    const chosen = names.filter((name) => {
      const {view, cadence_s} = market.channel(name);
      return SEEN.includes(view) && often === (view !== 'book' || cadence_s > 0);
    });
    if (chosen.length) client.subscribe(chosen, often ? {} : {interval_ms: 1000});
  }
}

const client = connect('ws', {
  token,
  channels: priced,
  replay: REPLAY,
  onMessage: market.fold,
  onStatus: market.status,
  onEvent: (what) => {
    const {type, lost, channel} = what;
    ({resumed: lost, lagged: [undefined], gap: [channel]})[type]?.forEach(market.broken);
    event(what);
    log(what);
  },
  onState: (now) => {
    if (now.state === 'open') {
      const {welcome} = now;
      market.meet(welcome);
      follow(welcome.channels.filter((name) => !known.has(name) && known.add(name)));
      if (!began) fillUp(welcome.seq - REPLAY);
      began = true;
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
addEventListener('hashchange', () => location.hash.includes('token=') && location.reload());
