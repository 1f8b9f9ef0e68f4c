// The comparison: of the chosen instrument all venues, with the best bid and ask of all; and who is lowest and highest.

import {instrument} from './choice.js';
import {byId, make, mark, mostDecimals, put, putDigits, rowHead, rows} from './dom.js';
import {offline} from './link.js';
import {best, exactly, now, prices, ranked, trouble} from './market.js';
import {age, difference, spread} from './numbers.js';
import {view} from './paint.js';

const listed = (...words) => words.filter(Boolean).join(', ');

// The newest consolidated quote, with the digits of each venue.
function quote(instrument) {
  const told = best.get(instrument);
  if (told) told.exact ??= exactly(told.text);
  return told;
}

const showVenues = rows(byId('venue-rows'), (exchange) => {
  const [last, bid, ask, apart] = [make('td'), make('td'), make('td'), make('td')];
  const note = make('td', 'muted note');
  return {element: make('tr', '', rowHead(exchange), last, bid, ask, apart, note), last, bid, ask, apart, note};
});

view('venues', () => {
  const chosen = instrument();
  const told = quote(chosen);
  const quotes = new Map((told?.exact.data?.venues ?? []).map((one) => [one.exchange, one]));
  const priced = ranked().filter((row) => row.instrument === chosen).map(({exchange}) => exchange);
  const names = [...new Set([...quotes.keys(), ...priced])];
  const of = (exchange) => ({quote: quotes.get(exchange), price: prices.get(`${chosen} ${exchange}`)});
  const decimals = mostDecimals(names.flatMap((name) => {
    const {quote, price} = of(name);
    return [quote?.bid, quote?.ask, price?.digits];
  }));
  showVenues(names, (row, exchange) => {
    const {quote, price} = of(exchange);
    putDigits(row.last, price?.digits, decimals);
    putDigits(row.bid, quote?.bid, decimals);
    putDigits(row.ask, quote?.ask, decimals);
    put(row.apart, quote?.bid && quote.ask ? difference(quote.ask, quote.bid) : '');
    const wrong = offline() || (price && trouble(price.channel, chosen));
    const silent = quote?.counts === 'false' || quote?.counts === false;
    put(row.note, listed(silent ? quote.reason || 'does not count' : wrong, price && age(now() - price.at)));
    mark(row.element, 'data-old', silent || wrong ? '' : null);
    mark(row.bid, 'data-best', told?.exact.bid_exchange === exchange ? '' : null);
    mark(row.ask, 'data-best', told?.exact.ask_exchange === exchange ? '' : null);
  });
  put(byId('venues-title'), `All venues of ${chosen || 'the instrument'}`);
  put(byId('venues-none'), names.length ? '' : 'No venue has said anything of it yet.');
});

// Rows of two numbers, under each whose it is, and how far they are apart.
const pairs = (id) => rows(byId(id), (instrument) => {
  const sides = [0, 1].map(() => ({digits: make('span'), of: make('span', 'muted of')}));
  const cells = sides.map(({digits, of}) => make('td', '', digits, of));
  const apart = make('td');
  return {element: make('tr', '', rowHead(instrument), ...cells, apart), sides, apart};
});
const fillPair = (row, instrument, pair) => {
  row.sides.forEach(({digits, of}, side) => {
    const price = pair[side];
    putDigits(digits, price.digits);
    put(of, listed(price.exchange, offline() || trouble(price.channel, instrument), age(now() - price.at)));
  });
  put(row.apart, spread(...pair.map(({digits}) => digits)));
};
const [showCompared, showBest] = ['compare-rows', 'best-rows'].map(pairs);

view('venues', () => {
  const venues = Map.groupBy(ranked(), ({instrument}) => instrument);
  const several = [...venues.keys()].filter((instrument) => venues.get(instrument).length > 1);
  showCompared(several, (row, instrument) => {
    const sorted = venues.get(instrument).sort((a, b) => a.value - b.value);
    fillPair(row, instrument, [sorted[0], sorted.at(-1)]);
  });
  const known = [...best.keys()];
  mark(byId('best'), 'hidden', known.length ? null : '');
  showBest(known, (row, instrument) => {
    const {exact, ...told} = quote(instrument);
    const sides = ['bid', 'ask'].map((side) => ({...told, digits: exact[side], exchange: exact[`${side}_exchange`]}));
    fillPair(row, instrument, sides);
  });
});
