/**
 * `client.js` in Node, for one scenario: what it tells goes to standard output, in the words that all clients share.
 *
 *     node scenario_client.mjs CLIENT.js URL CHANNEL,CHANNEL LEAVES OPTIONS CHANGES
 */

import {pathToFileURL} from 'node:url';

const [file, url, channels, leaves, options, changes] = process.argv.slice(2);
const {connect} = await import(pathToFileURL(file));
const note = (...what) => process.stdout.write(`${JSON.stringify(what)}\n`);
Math.random = () => 0.005; // it comes back soon

process.on('uncaughtException', (error) => note('uncaught', String(error)));

let change = JSON.parse(changes);
const client = connect(url, {
  channels: channels.split(','),
  ...JSON.parse(options),
  onMessage({connector_id, seq}) {
    note('message', connector_id, seq);
    if (change) client.subscribe([connector_id], change);
    change = null;
    if (connector_id === leaves) client.unsubscribe([leaves]);
  },
  onStatus: ({channel, state}) => note('status', channel, state),
  onState({state, code, retry_in_s}) {
    if (state === 'waiting') note('away', retry_in_s);
    if (state === 'closed') note('ended', code);
  },
  onEvent(event) {
    if (event.type === 'resumed') note('back', event.restarted, event.lost);
    if (event.type === 'gap') note('gap', event.channel, event.before);
    if (event.type === 'lagged') note('lagged', event.missed);
    if (event.type === 'error') note('refused', event.code);
  },
});
