/**
 * A client of tickerd that comes back by itself:
 *
 *     import {connect} from '/client.js';
 *     const client = connect('/ws', {channels: ['bitcoinprice'], onMessage: console.log});
 *
 * After a loss it resumes each channel. A message comes at most once; a missing one is told.
 * `JSON.parse` makes 42150.5 of `42150.50`: `message.data` has all. It runs in pages, in workers, and in Node from 22 on;
 * an older Node has no WebSocket, and takes one as an option. Its types are in `/client.d.ts`.
 */

const FINAL = [1003, 1007, 1008, 1009];
const CAP_S = 30;
const LONG_MS = 10_000;
const PROBE_MS = 4000;
const MOST_CHANNELS = 64;

/**
 * Connect to `url` (`/ws`, `wss://host/ws`), and stay connected. Commands return the `id` of answers, and hold on later
 * connections too. `history(channel, {instrument, limit, before, before_ms})` is a promise of what was (`messages`,
 * `more`...). Options (others, as `instruments`, `interval_ms`, go into `subscribe`):
 *
 * channels  names, or `['*']` for all
 * token     if one is needed
 * WebSocket the constructor, instead of the global one
 * replay    begin so many messages (of all channels) before the newest
 * onMessage (message, text): data; `text` is what came
 * onStatus  (status): a channel is `live`...
 * onState   ({state, code, reason, retry_in_s, welcome}): `connecting`, `open`, `waiting`, or for good `closed`
 * onEvent   (event): what else is said (`pong`, `lagged`...), `resumed` (`recovered`; `lost`: channels that go on from
 *           their newest message; `restarted`; `away_ms`), `gap` (`channel`, `instrument`, `before`...)
 */
export function connect(url, options = {}) {
  const {channels = [], token, replay, WebSocket = globalThis.WebSocket, ...others} = options;
  const {onMessage, onStatus, onState, onEvent, ...rest} = others;
  if (!WebSocket) throw new TypeError('no WebSocket here: pass one in the options, or use Node 22');
  const wanted = new Map(); // channel: its options (`how`), where it is (above `floor` all are due)
  const asked = new Map(); // id: a `subscribe` not answered
  let all; // the options of '*'
  let socket, welcome, goodbye, why, resumed, retryTimer, deadline, heartbeat;
  let [openedAt, lostAt, attempt, unanswered, commands] = [0, 0, 0, 0, 0];
  let announced = 0; // `lagged` covers these

  const listening = new AbortController();
  const target = new URL(url, globalThis.location);
  target.protocol = target.protocol.replace('http', 'ws');
  if (token) target.searchParams.set('token', token);

  function wish(names, how) {
    if (names.includes('*')) all = how;
    for (const name of names.includes('*') ? welcome?.channels ?? [] : names) wanted.set(name, {...wanted.get(name), how});
  }

  function command(type, names, how, id = `c${++commands}`) {
    if (type === 'subscribe') asked.set(id, how);
    if (openedAt && socket.readyState === 1) socket.send(JSON.stringify({type, channels: names, ...how, id}));
    return id;
  }

  const ping = (id) => command('ping', undefined, {}, id);

  function expect(ms) {
    clearTimeout(deadline);
    deadline = setTimeout(lost, ms, 1006, 'no answer');
  }

  function probe({persisted = true}) {
    if (!persisted) return;
    if (retryTimer) open();
    else if (socket) expect(PROBE_MS);
    ping('heartbeat');
  }

  function open() {
    retryTimer = clearTimeout(retryTimer);
    onState?.({state: 'connecting'});
    const mine = (socket = new WebSocket(target, 'tickerd.v1.json'));
    expect(LONG_MS);
    mine.onmessage = ({data}) => mine === socket && receive(data);
    mine.onerror = () => mine === socket && !openedAt && lost(1006); // in Node no close may follow
    mine.onclose = ({code, reason}) => mine === socket && lost(code, reason);
  }

  function receive(text) {
    clearTimeout(deadline);
    unanswered = 0;
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return end(1003, 'what came is not a message');
    }
    if (!openedAt && message.type !== 'welcome') return strange();
    if (message.connector_id && message.seq) return data(message, text);
    switch (message.type) {
      case 'welcome': return restore(message);
      case 'status': return onStatus?.(message);
      case 'subscribed': return subscribed(message);
      case 'lagged': announced = message.to_seq; break;
      case 'goodbye': goodbye = message; break;
      case 'pong': case 'unsubscribed': case 'error': case 'test': break;
      default: return;
    }
    if (message.id !== 'heartbeat') onEvent?.(message);
  }

  /** It is not tickerd: if it has been, something in between answers while it is away. */
  function strange() {
    if (welcome) lost(1006, 'no welcome came');
    else end(1003, 'no welcome came; it is not tickerd, or another version');
  }

  function begin(at, {epoch, seq}) {
    if (at.epoch !== epoch) Object.assign(at, {epoch, seq, last: new Map(), floor: undefined});
  }

  function data(message, text) {
    const {connector_id: channel, instrument, seq, prev_seq, bids, reset, through} = message;
    const at = wanted.get(channel);
    if (!at || at.deaf) return;
    begin(at, welcome);
    const had = at.last.get(instrument);
    if (had >= seq) return;
    if (!had && at.since && bids && !reset && !through && at.how.snapshot !== false) {
      at.deaf = at.owed = true; // no book
      command('unsubscribe', [channel]);
      return command('subscribe', [channel], {...at.how, since: undefined});
    }
    const after = had ?? at.floor;
    const told = Math.max(at.floor ?? 0, announced);
    const gap = {type: 'gap', channel, instrument, after, before: seq};
    if (prev_seq > Math.max(after, told) && !at.sampled) onEvent?.(gap);
    at.owed = bids && seq <= told; // a book's state
    at.last.set(instrument, (at.seq = seq));
    onMessage?.(message, text);
  }

  function restore(message) {
    const before = welcome;
    const restarted = before?.epoch !== message.epoch;
    heartbeat = setInterval(beat, message.heartbeat_s * 1000);
    welcome = message;
    why = '';
    openedAt = performance.now();
    if (restarted) announced = 0;
    if (all) wish(welcome.channels.filter((name) => !wanted.has(name)), all);
    asked.clear();
    const alike = new Map();
    for (const [channel, {how, epoch, seq, sampled, instruments, owed}] of wanted) {
      let since = epoch && {epoch, seq};
      if (since && `${instruments}` !== `${how.instruments}`) since.epoch = '-';
      if (!before && replay) since = {epoch: welcome.epoch, seq: Math.max(0, welcome.seq - replay)};
      if (how.interval_ms || sampled || owed) since = undefined;
      const key = JSON.stringify({...how, since});
      alike.set(key, [...(alike.get(key) ?? []), channel]);
    }
    resumed = before && {type: 'resumed', restarted, lost: [], away_ms: openedAt - lostAt};
    for (const [key, names] of alike) {
      while (names.length) command('subscribe', names.splice(0, MOST_CHANNELS), JSON.parse(key));
    }
    onState?.({state: 'open', welcome});
  }

  function subscribed(message) {
    const {since, interval_ms: sampled, instruments} = asked.get(message.id) ?? {};
    for (const channel of message.channels) {
      const at = wanted.get(channel) ?? {};
      const recovered = message.recovered?.[channel];
      if (recovered === false) resumed?.lost.push(channel);
      if (!recovered && at.owed !== undefined) at.last = new Map();
      if (at.seq > message.seq) at.epoch = '';
      begin(at, message);
      const {seq: floor} = (recovered && since) || message;
      Object.assign(at, {since, sampled, instruments, floor, seq: Math.min(at.seq, floor), deaf: false});
    }
    onEvent?.(message);
    asked.delete(message.id);
    if (asked.size || !resumed) return;
    onEvent?.({...resumed, recovered: !resumed.lost.length});
    resumed = null;
  }

  function beat() {
    if (++unanswered > 2) return lost(1006, '2 pings were not answered');
    ping('heartbeat');
  }

  function lost(code, reason) {
    if (openedAt && (lostAt = performance.now()) - openedAt > LONG_MS) attempt = 0;
    const retry_in_s = goodbye?.retry_after_s ?? Math.random() * Math.min(CAP_S, 2 ** attempt++);
    reason = why = reason || goodbye?.reason || why || 'the connection was lost';
    if (FINAL.includes(code)) return end(code, reason);
    drop();
    retryTimer = setTimeout(open, retry_in_s * 1000);
    onState?.({state: 'waiting', code, reason, retry_in_s});
  }

  function drop(code) {
    const mine = socket;
    socket = goodbye = null; // it may tell of its end at once
    mine?.close(code);
    openedAt = 0;
    clearTimeout(deadline);
    clearInterval(heartbeat);
  }

  /** For good. */
  function end(code, reason) {
    retryTimer = clearTimeout(retryTimer);
    drop(1000);
    listening.abort();
    onState?.({state: 'closed', code, reason});
  }

  async function history(channel, query = {}) {
    const asked = Object.entries(query).filter(([, value]) => value !== undefined);
    const source = new URL(`history/${encodeURIComponent(channel)}?${new URLSearchParams(asked)}`, target);
    source.protocol = source.protocol.replace('ws', 'http');
    const answer = await fetch(source, token && {headers: {Authorization: `Bearer ${token}`}});
    const body = await answer.json().catch(() => ({}));
    if (body.type === 'history') return body;
    throw Object.assign(new Error(body.message ?? `HTTP ${answer.status}`), {code: body.code});
  }

  wish(channels, rest);
  for (const what of ['online', 'offline', 'visibilitychange', 'pageshow']) {
    globalThis.addEventListener?.(what, probe, {signal: listening.signal});
  }
  open();

  return {
    subscribe(names, how = {}) {
      wish(names, how);
      return command('subscribe', names, how);
    },
    unsubscribe(names) {
      const every = names.includes('*');
      if (welcome || every) all = null;
      for (const name of every ? wanted.keys() : names) wanted.delete(name);
      return command('unsubscribe', names);
    },
    ping: () => ping(),
    history,
    close: () => end(1000, 'closed by this page'),
  };
}
