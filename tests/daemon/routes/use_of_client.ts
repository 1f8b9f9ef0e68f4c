import {connect, type DataMessage, type State} from 'tickerd-client';

const client = connect('ws://localhost:8000/ws', {
  channels: ['bitcoinprice'],
  interval_ms: 500,
  onMessage(message: DataMessage, text: string) {
    if (message.type === 'trade') console.log(message.side === 'buy', message.size.toFixed(2), text.length);
    if (message.type === 'depth_update') for (const [price, quantity] of message.bids) console.log(price.length, quantity);
    if (message.type === 'price_update' && 'last' in message.data) console.log(message.data.last);
  },
  onState(state: State) {
    if (state.state === 'open') console.log(state.welcome.channels.join());
    if (state.state === 'waiting') console.log(state.retry_in_s);
  },
  onEvent(event) {
    if (event.type === 'gap') console.log(event.before);
    if (event.type === 'error') console.log(event.code === 'unknown_channel', event.message);
  },
});
const id: string = client.subscribe(['okx_trades'], {instruments: ['BTC/USDT']});
client.history('okx_candles', {limit: 3}).then(({messages, more}) => console.log(id, messages.length, more));
// @ts-expect-error the option is called otherwise
connect('x', {chanels: []});
// @ts-expect-error a state has no such name
const wrong: State = {state: 'opened'};
