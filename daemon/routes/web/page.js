/** The live page: one connection, one state, and once a frame whatever has changed is shown. */

import {connect} from './client.js';
import {drawChart, drawSparks, fillInstruments, setUpChart} from './chart.js';
import {log, renderLog, renderRaw, setUpConsole} from './console.js';
import {event, renderLink, renderRate, setUpLink, state} from './link.js';
import {renderMarket, renderTop, renderTrending} from './lists.js';
import {renderBook, renderChannels, renderCompare, renderPrices} from './live.js';
import * as market from './market.js';

const REPLAY = 2000; // messages before the newest, with which the charts begin

const views = {
  link: renderLink,
  rate: renderRate,
  channels: renderChannels,
  instruments: fillInstruments,
  prices: renderPrices,
  compare: renderCompare,
  chart: drawChart,
  sparks: drawSparks,
  book: renderBook,
  market: renderMarket,
  top: renderTop,
  trending: renderTrending,
  raw: renderRaw,
  log: renderLog,
};
const dirty = new Set();
let frame = 0;

function touch(view) {
  dirty.add(view);
  frame ||= requestAnimationFrame(render);
}

function render() {
  const due = [...dirty];
  dirty.clear();
  frame = 0;
  for (const view of due) {
    try {
      views[view]();
    } catch (error) {
      reportError(error); // the others go on
    }
  }
}

const [, token] = /token=([^&]+)/.exec(location.hash) ?? [];
const headers = token ? {Authorization: `Bearer ${token}`} : {};

const get = async (path) => (await fetch(path, {headers})).json();

// The daemon may be gone: then the client waits for it, and asks for all.
const reports = () => get('channels').then(({channels}) => channels, () => []);

market.watch(touch);
const first = await reports();
market.describe(first);
const priced = first.filter(({view}) => ['price', 'day'].includes(view)).map(({name}) => name);
const known = new Set(priced); // one that was left by hand is not brought back
let began = false;

/** A replay brings what is new enough; older ones are in the snapshots. */
async function fillUp(seq) {
  for (const name of priced) {
    const {messages = []} = await get(`snapshot/${encodeURIComponent(name)}`);
    for (const message of messages) if (message.seq <= seq) market.fold(message, JSON.stringify(message));
  }
}

async function follow(names) {
  if (names.some((name) => !market.channel(name).view)) market.describe(await reports());
  client.subscribe(names);
}

const client = connect('ws', {
  token,
  channels: priced,
  replay: REPLAY,
  onMessage: market.fold,
  onStatus: market.status,
  onEvent: (what) => {
    if (what.type === 'resumed') for (const name of what.lost) market.broken(name);
    if (what.type === 'lagged') market.broken();
    if (what.type === 'gap') market.broken(what.channel);
    event(what);
    log(what);
  },
  onState: (now) => {
    if (now.state === 'open') {
      const {welcome} = now;
      market.meet(welcome);
      const others = welcome.channels.filter((name) => !known.has(name));
      for (const name of others) known.add(name);
      if (others.length) follow(others);
      if (!began) fillUp(welcome.seq - REPLAY).catch(() => {}); // the daemon went: the connection says so
      began = true;
    }
    if (now.state === 'waiting' && !began) { // a page is not told why it was not let in, but what it fetches is
      fetch(`snapshot/${priced[0]}`, {headers}).then(({status}) => {
        if (status === 401) now.reason = 'no valid token: open this page as /#token=TOKEN';
      }, () => {});
    }
    state(now);
  },
});

setUpChart(touch);
setUpLink(touch);
setUpConsole(client, touch);

setInterval(() => ['link', 'rate', 'channels', 'prices', 'compare', 'chart', 'sparks', 'book'].forEach(touch), 1000);

for (const head of document.querySelectorAll('th')) head.scope = 'col';

addEventListener('pagehide', () => client.close());
addEventListener('hashchange', () => location.hash.includes('token=') && location.reload());
addEventListener('pageshow', ({persisted}) => persisted && location.reload());
