/**
 * A client of tickerd that comes back by itself:
 *
 *     import {connect} from '/client.js';
 *     const client = connect('/ws', {channels: ['bitcoinprice'], onMessage: console.log});
 *
 * After a loss it waits (full jitter, or as `goodbye` says) and resumes each channel where it stopped. A message comes
 * at most once; one that is missing is announced.
 *
 * `JSON.parse` makes 42150.5 of `42150.50`: the venue's digits are the strings in `message.data`.
 */

const FINAL = [1003, 1007, 1008, 1009]; // do not come back
const CAP_S = 30; // of the back-off
const STABLE_MS = 10_000; // then it begins anew
const WELCOME_MS = 10_000;
const MOST_CHANNELS = 64; // in one command

/**
 * Connect, and stay connected. Commands return their `id`, which answers carry; without a connection, `subscribe` and
 * `unsubscribe` hold from the next one on. `close` is for good.
 * @param {string} url `/ws`, or `wss://host/ws`
 * @param {object} [options] further ones, as `instruments` and `interval_ms`, go into `subscribe`
 * @param {string[]} [options.channels] names, or `['*']` for all
 * @param {string} [options.token] where one is needed
 * @param {number} [options.replay] begin this many messages (of all channels) before the newest
 * @param {(message: object, text: string) => void} [options.onMessage] each data message; `text` is what came
 * @param {(status: object) => void} [options.onStatus] a channel's source is `live`, `stale`, `down`...
 * @param {(state: {state: 'connecting' | 'open' | 'waiting' | 'closed', code?: number, reason?: string,
 *   retry_in_s?: number, welcome?: object}) => void} [options.onState] this connection; `closed` is for good
 * @param {(event: object) => void} [options.onEvent] what else is said (`pong`, `error`, `lagged`...), `resumed`
 *   (`recovered`: nothing was lost; `lost`: channels that go on from their newest message; `restarted`; `away_ms`)
 *   and `gap` (not announced: `channel`, `instrument`, `after`, `before`)
 */
export function connect(url, {channels = [], token, replay, onMessage, onStatus, onState, onEvent, ...rest} = {}) {
  const wanted = new Map(); // channel: its options
  const heard = new Map(); // channel: where it is; seq by instrument
  let all = null; // the options of '*'
  let socket = null;
  let welcome = null;
  let openedAt = 0; // 0 while it is not open
  let lostAt = 0;
  let announced = 0; // `lagged` covers all up to here
  let restoring = null;
  let goodbye = null;
  let [attempt, unanswered, commands] = [0, 0, 0];
  let retryTimer, welcomeTimer, heartbeat;

  const target = new URL(url, location);
  target.protocol = target.protocol.replace('http', 'ws');
  if (token) target.searchParams.set('token', token);

  function wish(names, how) {
    if (names.includes('*')) all = how;
    for (const name of names.flatMap((each) => (each === '*' ? welcome?.channels ?? [] : each))) wanted.set(name, how);
  }

  function command(what) {
    const id = what.id ?? `c${++commands}`;
    if (openedAt && socket.readyState === 1) socket.send(JSON.stringify({...what, id}));
    return id;
  }

  function open() {
    retryTimer = clearTimeout(retryTimer);
    onState?.({state: 'connecting'});
    const mine = (socket = new WebSocket(target, 'tickerd.v1.json'));
    welcomeTimer = setTimeout(() => lost(1006, 'no answer'), WELCOME_MS);
    mine.onmessage = ({data}) => mine === socket && receive(data);
    mine.onclose = ({code, reason}) => mine === socket && lost(code, reason);
  }

  function receive(text) {
    unanswered = 0;
    const message = JSON.parse(text);
    if (message.connector_id && message.seq) return data(message, text);
    switch (message.type) {
      case 'welcome': return restore(message);
      case 'status': return onStatus?.(message);
      case 'subscribed': return subscribed(message);
      case 'lagged': announced = message.to_seq; break;
      case 'goodbye': goodbye = message; break;
      case 'pong': case 'unsubscribed': case 'error': case 'test': break;
      default: return; // a later version's
    }
    if (message.id !== 'heartbeat') onEvent?.(message);
  }

  function place(channel, {epoch, seq}) {
    if (heard.get(channel)?.since.epoch !== epoch) heard.set(channel, {since: {epoch, seq}, last: new Map()});
    return heard.get(channel);
  }

  function data(message, text) {
    const {connector_id, instrument, seq, prev_seq} = message;
    const how = wanted.get(connector_id);
    if (!how) return; // left meanwhile
    const {since, last} = place(connector_id, welcome);
    const after = last.get(instrument);
    if (after >= seq) return;
    if (after < prev_seq && prev_seq > announced && !how.interval_ms) {
      onEvent?.({type: 'gap', channel: connector_id, instrument, after, before: seq});
    }
    last.set(instrument, since.seq = seq);
    onMessage?.(message, text);
  }

  function restore(message) {
    const first = !welcome;
    const restarted = !first && welcome.epoch !== message.epoch;
    clearTimeout(welcomeTimer);
    heartbeat = setInterval(beat, message.heartbeat_s * 1000);
    welcome = message;
    openedAt = Date.now();
    if (restarted) announced = 0;
    for (const name of all ? welcome.channels : []) if (!wanted.has(name)) wanted.set(name, all);
    const alike = new Map(); // what one command restores
    for (const [channel, how] of wanted) {
      let since = heard.get(channel)?.since;
      if (first && replay) since = {epoch: welcome.epoch, seq: Math.max(0, welcome.seq - replay)};
      const key = JSON.stringify(how.interval_ms ? how : {...how, since});
      alike.set(key, [...(alike.get(key) ?? []), channel]);
    }
    restoring = {first, restarted, ids: new Set(), lost: [], away_ms: openedAt - lostAt};
    for (const [key, names] of alike) {
      while (names.length) {
        const some = names.splice(0, MOST_CHANNELS);
        restoring.ids.add(command({type: 'subscribe', channels: some, ...JSON.parse(key)}));
      }
    }
    onState?.({state: 'open', welcome});
  }

  function subscribed(message) {
    const lost = message.channels.filter((channel) => message.recovered?.[channel] === false);
    for (const channel of lost) heard.delete(channel);
    for (const channel of message.channels) place(channel, message);
    restoring?.lost.push(...lost);
    onEvent?.(message);
    if (!restoring?.ids.delete(message.id) || restoring.ids.size) return;
    const {ids, first, ...found} = restoring;
    restoring = null;
    if (!first) onEvent?.({type: 'resumed', recovered: !found.lost.length, ...found});
  }

  function beat() {
    if (++unanswered > 2) return lost(1006, '2 pings were not answered');
    command({type: 'ping', id: 'heartbeat'});
  }

  function lost(code, reason) {
    if (openedAt) lostAt = Date.now();
    if (openedAt && lostAt - openedAt > STABLE_MS) attempt = 0;
    const retry_in_s = goodbye?.retry_after_s ?? Math.random() * Math.min(CAP_S, 2 ** attempt++);
    reason ||= goodbye?.reason || 'the connection was lost';
    drop();
    if (FINAL.includes(code)) return onState?.({state: 'closed', code, reason});
    retryTimer = setTimeout(open, retry_in_s * 1000);
    onState?.({state: 'waiting', code, reason, retry_in_s});
  }

  function drop(code) {
    const old = socket;
    socket = goodbye = restoring = null;
    openedAt = 0;
    clearTimeout(welcomeTimer);
    clearInterval(heartbeat);
    old?.close(code);
  }

  wish(channels, rest);
  addEventListener('online', () => retryTimer && open());
  open();

  return {
    subscribe(names, how = {}) {
      wish(names, how);
      return command({type: 'subscribe', channels: names, ...how});
    },
    unsubscribe(names) {
      if (welcome || names.includes('*')) all = null; // what is left stands in `wanted`, by name
      for (const name of names.includes('*') ? [...wanted.keys()] : names) {
        wanted.delete(name);
        heard.delete(name);
      }
      return command({type: 'unsubscribe', channels: names});
    },
    ping: () => command({type: 'ping'}),
    close() {
      retryTimer = clearTimeout(retryTimer);
      drop(1000);
      onState?.({state: 'closed', code: 1000, reason: 'closed by this page'});
    },
  };
}
